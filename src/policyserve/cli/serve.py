"""`policyserve serve`: load a policy and answer until a signal comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import arg

from policyserve.cli.policies import PresetPolicy, Source, object_source, preset_default, preset_source, run_default
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, parse, serve_until_stopped
from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl import PRESETS
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server

_WALL_X = "wall-x"
_BUILT_IN = {"demo_image": "policyserve.policies.fakes:demo_image"}


@dataclass(frozen=True)
class ServeObject:
    """Serve an object or function of your own."""

    server: Annotated[ServerConfig, arg(name="")] = field(default_factory=ServerConfig)
    debug: bool = False
    """Log every step, and tracebacks of errors that end the program."""


@dataclass(frozen=True)
class ServePreset:
    """Serve a trained policy."""

    policy: Annotated[PresetPolicy, arg(name="")] = field(default_factory=PresetPolicy)
    server: Annotated[ServerConfig, arg(name="")] = field(default_factory=ServerConfig)
    debug: bool = False
    """Log every step, and tracebacks of errors that end the program."""


def main(argv: Sequence[str], *, prog: str = "policyserve serve", needs_checkpoint: bool = False) -> None:
    """Serve what the arguments say; needs_checkpoint: no demo stands in for a checkpoint."""
    target = argv[0] if argv else ""
    known = f"{', '.join(PRESETS)}, {', '.join(_BUILT_IN)}, {_WALL_X}, or package.module:name"
    if target in ("-h", "--help"):
        print(f"usage: {prog} POLICY [flags]\n\nPOLICY is one of {known}\n{prog} POLICY --help lists its flags")
    elif target == _WALL_X and not needs_checkpoint:
        from policyserve.compat.wall_x import launch_serving

        launch_serving(argv[1:], prog=f"{prog} {target}", dialect="auto")
    elif target in PRESETS:
        _serve_preset(target, argv[1:], f"{prog} {target}", needs_checkpoint)
    elif target in _BUILT_IN or (":" in target and not needs_checkpoint):
        flags = parse(ServeObject, f"{prog} {target}", argv[1:])
        _serve(object_source(_BUILT_IN.get(target, target)), flags, f"{prog} {target}")
    else:
        complain(f"{prog}: expected a policy first ({known}), got {target or 'none'!r}", ARGUMENT_ERROR)


def _serve_preset(name: str, argv: Sequence[str], prog: str, needs_checkpoint: bool) -> None:
    flags = parse(ServePreset, prog, argv, ServePreset(preset_default(name)))
    if flags.policy.checkpoint_dir is None and needs_checkpoint:
        complain(f"{prog}: --checkpoint_dir is required", ARGUMENT_ERROR)
    try:
        start = run_default(name, flags.policy.checkpoint_dir)
        flags = parse(ServePreset, prog, argv, ServePreset(start))  # again: flags that are not given are the run's
        source = preset_source(name, flags.policy)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR if flags.policy.checkpoint_dir is None else FAILURE)
    _serve(source, flags, prog)


def _serve(source: Source, flags: ServeObject | ServePreset, prog: str) -> None:
    try:
        server = Server(source.load, flags.server)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR)
    serve_until_stopped(server, source.title, source.origin, flags.debug)
