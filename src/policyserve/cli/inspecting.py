"""`policyserve inspect`: what a policy's file, or a server, is: its spec, state, batches and size; or why not."""

from __future__ import annotations

import json as writer
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Generic, NoReturn, TypeVar

from tyro.conf import Positional, arg

from policyserve import dialects
from policyserve.cli.arguments import help_page
from policyserve.cli.arguments.flags import flags_of
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.foreground.progress import ProgressLine, stage_line
from policyserve.cli.foreground.start_screen import Screen
from policyserve.cli.inspection.facts import Facts
from policyserve.cli.inspection.local import facts_of_policy
from policyserve.cli.inspection.remote import facts_of_server
from policyserve.cli.inspection.screen import lines
from policyserve.cli.keys import key_from_environment, key_from_file
from policyserve.cli.policies import overview, read_flags, take_policy
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn_of_keys
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.doctor.server import Examined
from policyserve.policies import registry
from policyserve.policies.registry import Adapter

PROG = "policyserve inspect"
_URL = re.compile(r"[\w+]+://")
_HOST_AND_PORT = re.compile(r"(localhost|[\w-]+(\.[\w-]+)+):\d+(/.*)?")

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class InspectServer:
    """Say what a policy's file or a server is: its spec with units and layouts, state, batches, size; or why not.

    A policy is loaded as `policyserve serve` loads it, with the same flags, and asked once; of a server the greeting is
    read. It ends with 0, with 1 for what cannot be served. A key that a server asks for is taken from the environment,
    POLICYSERVE_API_KEY, or from a file.
    """

    target: Annotated[Positional[str], arg(metavar="TARGET")] = field(repr=False)
    """a POLICY, or the URL of a server: ws://host:port, wss://host:port or ws+unix:///path/to/socket."""
    json: bool = False
    """Print one JSON object, and nothing else."""
    dialect: str = "auto"
    """Of a server: openpi, wall_x, vibe_rl; auto finds it out."""
    api_key_file: Path | None = None
    """Of a server: a file whose first line holds the key, `name: key` or `key`, as the server's own has it."""
    timeout_s: float = 5.0
    """Of a server: for each step."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        if self.dialect != "auto":
            dialects.by_name(self.dialect)
        if not 0 < self.timeout_s <= 3600:
            raise ConfigError(f"--timeout-s: expected more than 0 and at most 3600, got {self.timeout_s!r}")


@dataclass(frozen=True)
class InspectPolicy(Generic[PolicyFlagsT]):
    """Say what a policy is: it is loaded as `policyserve serve` loads it, and asked once."""

    policy: Annotated[PolicyFlagsT, arg(name="")]
    json: bool = False
    """Print one JSON object, and nothing else."""


def main(argv: Sequence[str]) -> None:
    """Inspect what the arguments name; exits with 1 for what cannot be served, with 2 for wrong arguments."""
    target, words = take_policy(argv, flags_of(InspectServer))
    try:
        if target is None and help_page.wanted(argv) is not None:
            parse(InspectServer, PROG, argv, description=overview(str(InspectServer.__doc__)))
        elif target is None:
            complain(f"expected a policy or a server's URL ({PROG} --help)", ARGUMENT_ERROR)
        elif _is_server(target):
            _inspect_server(argv)
        else:
            _inspect_policy(target, words)
    except KeyboardInterrupt:
        complain("interrupted before all was found out", 130)


def _is_server(target: str) -> bool:
    """Whether it is a server's URL, and not a scheme of ours before one, `remote:ws://…`."""
    return _URL.match(target) is not None


def _inspect_server(argv: Sequence[str]) -> None:
    flags = parse(InspectServer, PROG, argv)
    try:
        key = key_from_environment() if flags.api_key_file is None else key_from_file(flags.api_key_file)
        server = Examined(flags.target, flags.dialect, key, flags.timeout_s)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    warn_of_keys(flags.target)
    _show(facts_of_server(server), is_json=flags.json)


def _inspect_policy(target: str, argv: Sequence[str]) -> None:
    adapter = _adapter(target, argv)
    flags = read_flags(adapter, InspectPolicy, f"{PROG} {target}", argv)
    try:
        source = adapter.source(flags.policy)
    except MissingDependency as error:
        _refuse(target, registry.kind_of(target, adapter), str(error), is_json=flags.json)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    line = ProgressLine(is_wanted=not flags.json)
    with line.shared():
        facts = facts_of_policy(target, adapter, source, lambda stage: line.show(stage_line(stage)))
    _show(facts, is_json=flags.json)


def _adapter(target: str, argv: Sequence[str]) -> Adapter[object]:
    """The adapter for a target; exits with 2 for a wrong name, with 1 for a file that is there and refused."""
    if _HOST_AND_PORT.fullmatch(target) and not registry.is_refused(target):
        told = f"expected a policy or a server's URL, got {target!r} (did you mean ws://{target}?)"
        complain(told, ARGUMENT_ERROR)
    try:
        return registry.find(target)
    except ConfigError as error:
        if not registry.is_refused(target):
            complain(str(error), ARGUMENT_ERROR)
        _refuse(target, "", str(error), is_json="--json" in argv)


def _refuse(target: str, kind: str, why: str, *, is_json: bool) -> NoReturn:
    _show(Facts(target, kind, target, refused=why), is_json=is_json)
    raise AssertionError("what is refused ends the command")


def _show(facts: Facts, *, is_json: bool) -> None:
    """Print what was found; exits with 1 where it cannot be served."""
    if is_json:
        print(writer.dumps(facts.as_json(), indent=2))
        sys.exit(FAILURE if facts.refused else 0)
    if facts.refused:
        complain(f"{facts.target}: {facts.refused}" if facts.is_server else facts.refused, FAILURE)
    Screen(sys.stdout).show(lines(facts, Screen(sys.stdout)))
