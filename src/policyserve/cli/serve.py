"""`policyserve serve`: load a policy and answer until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from tyro.conf import arg

from policyserve.cli.policies import PresetPolicy, Source, object_source, preset_default, preset_source
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, log_to_stderr, parse
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.spec import PolicySpec
from policyserve.policies.vibe_rl import PRESETS
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server

log = logging.getLogger(__name__)

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
    known = f"{', '.join(PRESETS)}, {', '.join(_BUILT_IN)}, or package.module:name"
    if target in ("-h", "--help"):
        print(f"usage: {prog} POLICY [flags]\n\nPOLICY is one of {known}\n{prog} POLICY --help lists its flags")
    elif target in PRESETS:
        _serve_preset(target, argv[1:], f"{prog} {target}", needs_checkpoint)
    elif target in _BUILT_IN or (":" in target and not needs_checkpoint):
        flags = parse(ServeObject, f"{prog} {target}", argv[1:])
        _serve(object_source(_BUILT_IN.get(target, target)), flags.server, flags.debug)
    else:
        complain(f"{prog}: expected a policy first ({known}), got {target or 'none'!r}", ARGUMENT_ERROR)


def _serve_preset(name: str, argv: Sequence[str], prog: str, needs_checkpoint: bool) -> None:
    flags = parse(ServePreset, prog, argv, ServePreset(preset_default(name, True)))
    if flags.policy.checkpoint_dir is None:
        if needs_checkpoint:
            complain(f"{prog}: --checkpoint_dir is required", ARGUMENT_ERROR)
        flags = parse(ServePreset, prog, argv, ServePreset(preset_default(name, False)))
    try:
        source = preset_source(name, flags.policy)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR if flags.policy.checkpoint_dir is None else FAILURE)
    _serve(source, flags.server, flags.debug)


def _serve(source: Source, config: ServerConfig, debug: bool) -> None:
    log_to_stderr(debug)
    started_at = time.monotonic()
    server = Server(source.load, config)
    print(f"policyserve serves {source.title}\n  from    {source.origin}", flush=True)

    def on_ready(spec: PolicySpec) -> None:
        for line in describe(spec, *server.address):
            print(f"  {line}")
        print(f"ready after {time.monotonic() - started_at:.1f} s; Ctrl-C stops it", flush=True)

    try:
        asyncio.run(server.run(on_ready))
    except PolicyserveError as error:
        log.debug("the traceback", exc_info=error)
        complain(f"policyserve: {error}", FAILURE)


def describe(spec: PolicySpec, host: str, port: int) -> list[str]:
    """What a person who starts a server wants to know, line by line."""
    reachable = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    url = f"ws://{reachable}:{port}"
    lines = [f"takes   {path}: {leaf}" + (f"  {leaf.doc}" if leaf.doc else "") for path, leaf in spec.leaves.items()]
    gives = "any finite numbers" if spec.action is None else str(spec.action)
    steps = "" if spec.horizon is None else f", chunks of {spec.horizon}"
    doc = f"  {spec.action.doc}" if spec.action and spec.action.doc else ""
    return [
        *(lines or ["takes   any observation (the policy declares no spec)"]),
        f"gives   {gives}{steps}{doc}",
        f"url     {url}   health: http://{reachable}:{port}/healthz",
        f"client  {_client_line(spec, url)}",
    ]


def _client_line(spec: PolicySpec, url: str) -> str:
    """A command to paste: it asks for one action with zeros."""
    examples = {path: leaf.example() for path, leaf in spec.leaves.items()} or {"obs": np.zeros(4, np.float32)}
    items = [
        f"'{path}': " + (f"np.zeros({value.shape}, '{value.dtype}')" if isinstance(value, np.ndarray) else repr(value))
        for path, value in examples.items()
    ]
    client = f"policyserve.Client('{url}', dialect='{spec.dialect or 'openpi'}')"
    code = f"import numpy as np, policyserve; print({client}.infer({{{', '.join(items)}}}).actions)"
    return f'python -c "{code}"'
