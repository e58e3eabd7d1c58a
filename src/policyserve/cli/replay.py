"""`policyserve replay`: ask what was recorded again, and compare the actions."""

from __future__ import annotations

import asyncio
import json as writer
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from tyro.conf import arg

from policyserve.bench.figures import ENDINGS, new_figure
from policyserve.bench.machine import counted
from policyserve.cli.arguments import help_page
from policyserve.cli.arguments.configuration import Configuration, ConfigurationFlags, read_configuration
from policyserve.cli.arguments.effective import end_if_printed
from policyserve.cli.arguments.flags import flags_of
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.arguments.setting import Setting
from policyserve.cli.colours import coloured
from policyserve.cli.foreground.progress import ProgressLine
from policyserve.cli.keys import key_from_environment, naming_variable
from policyserve.cli.policies import find_adapter, find_source, overview, read_flags, take_policy
from policyserve.cli.targets import check_target
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn, warn_of_keys
from policyserve.client.address import has_key, without_key
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.policies import registry
from policyserve.policies.registry import Source, check_given
from policyserve.recordings import layout
from policyserve.recordings.reading import Recording, open_recording
from policyserve.replay.against import compare_recordings
from policyserve.replay.asking import OnStep, Target, ask_again
from policyserve.replay.gathered import Gathered, Verdict
from policyserve.replay.plot import plot_verdict
from policyserve.replay.report import last_line, text
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server

PROG = "policyserve replay"
_LOOPBACK = ServerConfig(host="127.0.0.1", port=0)
_SHOWN_EVERY_S = 0.2
_WHAT = "expected a policy, --url ws://host:port of a server, or --against FILE2"

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class ReplayFlags:
    """What is compared, and where the result goes."""

    tolerance: float | None = None
    """The largest difference that is allowed, in the actions' own units; 0: none; None: what float rounding brings."""
    plot: Path | None = None
    """Draw recorded against replayed, for the worst numbers of an action, to this file (.png, .svg, .pdf)."""
    json: bool = False
    """Print one JSON object, and nothing else."""
    speed: Literal["fast", "real"] = "fast"
    """real: keep the recorded pauses of each session; fast: ask as soon as the last answer is there."""
    timeout_s: float = 60.0
    """For each answer."""
    group: ClassVar[str] = "common"

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        if self.tolerance is not None and not self.tolerance >= 0:
            raise ConfigError(f"--tolerance: expected 0 or more, got {self.tolerance}")
        if not 0 < self.timeout_s <= 86_400:
            raise ConfigError(f"--timeout-s: expected more than 0 and at most 86400, got {self.timeout_s}")


@dataclass(frozen=True)
class ReplayServer(ConfigurationFlags):
    """Ask what was recorded again, and compare the actions.

    FILE is what `policyserve serve --record DIR` wrote. Asked is POLICY, or the server at --url; --against compares
    with a second recording. It ends with 0 if all is within the tolerance, with 1 if something is not, could not be
    asked or compared, with 2 for wrong arguments. A key is taken from the environment, POLICYSERVE_API_KEY.
    """

    url: str | None = field(default=None, repr=False)
    """ws://host:port of a running server to ask, each session in the dialect that was recorded."""
    against: Annotated[Path | None, arg(metavar="FILE2")] = None
    """Compare with this recording; nobody is asked."""
    run: Annotated[ReplayFlags, arg(name="")] = field(default_factory=ReplayFlags)

    def __post_init__(self) -> None:
        check_given(url=self.url)


@dataclass(frozen=True)
class ReplayPolicy(ConfigurationFlags, Generic[PolicyFlagsT]):
    """Ask a policy what was recorded again, over a server in this process, and compare the actions.

    FILE is what `policyserve serve --record DIR` wrote. It ends with 0 if all is within the tolerance, with 1 if
    something is not, could not be asked or compared, with 2 for wrong arguments.
    """

    policy: Annotated[PolicyFlagsT, arg(name="")]
    run: Annotated[ReplayFlags, arg(name="")] = field(default_factory=ReplayFlags)


def main(argv: Sequence[str]) -> None:
    """Replay a recording; exits with 0 or 1 by what it found, with 2 for wrong arguments."""
    file, target, words = _taken(argv)
    others = _named_beside(target, words)
    try:
        configuration = read_configuration(words, target, environment={})
        policy = None if others else configuration.policy
        if policy is None and help_page.wanted(argv) is not None:
            parse(ReplayServer, f"{PROG} FILE [POLICY]", argv, description=overview(str(ReplayServer.__doc__)))
        elif policy is None:
            _replay_other(file, words, configuration)
        else:
            _replay_policy(file, policy, words, configuration)
    except PolicyserveError as error:
        complain(naming_variable(str(error)), FAILURE)
    except KeyboardInterrupt:
        complain("interrupted before an answer was there", 130)


def _taken(argv: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """The recording and the policy that the words name, in whichever order, and the other words."""
    flags = flags_of(ReplayServer)
    file, words = take_policy(argv, flags)
    policy, words = take_policy(words, flags)
    if file in registry.names() and policy not in registry.names():
        file, policy = policy, file
    return file, policy, words


def _named_beside(policy: str | None, words: Sequence[str]) -> list[str]:
    """The flags that name what is compared instead of a policy; exits with 2 where more than one thing is named."""
    given = {word.partition("=")[0] for word in words}
    flags = [flag for flag in ("--url", "--against") if flag in given]
    if policy is not None and policy.endswith(layout.ENDING):
        complain(f"expected one recording, got a second one, {policy}: --against compares two", ARGUMENT_ERROR)
    named = flags if policy is None else [policy, *flags]
    if len(named) > 1:
        complain(f"{_WHAT}, got {' and '.join(named)} ({PROG} --help)", ARGUMENT_ERROR)
    return flags


def _replay_other(file: str | None, words: Sequence[str], configuration: Configuration) -> None:
    """Ask the server at --url, or compare with the recording of --against."""
    given = configuration.given_or_end(ReplayServer, words)
    flags = parse(ReplayServer, f"{PROG} FILE", words, given=given)
    end_if_printed(flags, given)
    path = _path(file)
    if (flags.url is None) == (flags.against is None):
        got = "none" if flags.url is None else "url and against"  # of a file: main() has looked at the words
        complain(f"{_WHAT}, got {got} ({PROG} --help)", ARGUMENT_ERROR)
    recording = _checked(path, flags.run)
    if flags.against is not None:
        _compare(recording, flags.against, flags.run)
    if flags.url is not None:
        _ask_server(recording, flags.url, flags.run)


def _compare(recording: Recording, path: Path, run: ReplayFlags) -> None:
    other = _opened(path, "--against")
    gathered = Gathered(_who(recording), f"{path.name}: {_who(other)}".removesuffix(": "))
    _run(run, recording, gathered, lambda on_step: compare_recordings(recording, other, gathered, on_step))


def _ask_server(recording: Recording, url: str, run: ReplayFlags) -> None:
    warn_of_keys(url)
    target = Target(url, None if has_key(url) else key_from_environment(), timeout_s=run.timeout_s)
    gathered = Gathered(_who(recording), without_key(url))
    asking = partial(ask_again, recording, target, gathered, keeps_pauses=run.speed == "real")
    _run(run, recording, gathered, lambda on_step: asyncio.run(asking(on_step)))


def _replay_policy(file: str | None, policy: Setting, words: Sequence[str], configuration: Configuration) -> None:
    adapter = find_adapter(policy.value, policy.place)
    flags = read_flags(adapter, ReplayPolicy, f"{PROG} FILE {policy.value}", words, configuration)
    recording = _checked(_path(file), flags.run)
    source = find_source(adapter, flags.policy)
    gathered = Gathered(_who(recording), policy.value, source.origin)
    asking = partial(_serve_and_ask, source, recording, flags.run, gathered)
    _run(flags.run, recording, gathered, lambda on_step: asyncio.run(asking(on_step)))


async def _serve_and_ask(
    source: Source, recording: Recording, run: ReplayFlags, gathered: Gathered, on_step: OnStep
) -> None:
    async with Server(source.recipe, _LOOPBACK) as server:
        spec = await server.ready()
        host, port = server.address
        gathered.replayed = _named(spec.name, layout.PolicyFacts.of(spec).checkpoint)
        target = Target(f"ws://{host}:{port}", key_from_environment(), spec, run.timeout_s)
        await ask_again(recording, target, gathered, on_step, keeps_pauses=run.speed == "real")


def _path(file: str | None) -> Path:
    if file is None:
        complain(f"expected FILE, a recording, got none ({PROG} --help)", ARGUMENT_ERROR)
    return Path(file).expanduser()


def _checked(path: Path, run: ReplayFlags) -> Recording:
    """The recording; what would else be found wrong at the end ends the command here."""
    try:
        check_target("plot", run.plot, ENDINGS)
        if run.plot is not None:
            new_figure()
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    return _opened(path, "")


def _opened(path: Path, flag: str) -> Recording:
    """Exits with 2 and one line where no recording can be read there, with 1 where the package for it is missing."""
    try:
        recording = open_recording(path)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(f"{flag}: {error}".removeprefix(": "), ARGUMENT_ERROR)
    if recording.facts.is_cut:
        warn(f"{path} has no end: its writer was killed, or writes still. What is there is read")
    if recording.facts.left_out:
        told = f"{path} lacks {counted(recording.facts.left_out, 'request')} that its writer had no room for"
        warn(f"{told}: a policy with a memory may answer otherwise without")
    return recording


def _who(recording: Recording) -> str:
    """Which policy was recorded; empty where nobody says."""
    facts = recording.facts
    return _named(facts.policy, facts.checkpoint)


def _named(name: str, checkpoint: str) -> str:
    return f"{name}, checkpoint {checkpoint}" if checkpoint else name


def _run(run: ReplayFlags, recording: Recording, gathered: Gathered, work: Callable[[OnStep], None]) -> None:
    """Do it, show how far it is, and tell the result; Ctrl-C ends it with what there is, and 130."""
    is_stopped = False
    with _progress() as show:
        try:
            work(show)
        except KeyboardInterrupt:
            if not gathered.pairs:
                raise
            is_stopped, gathered.stopped = True, "by Ctrl-C"
    verdict = gathered.compared(run.tolerance)
    if run.plot is not None and verdict.comparison.dimensions:
        plot_verdict(verdict, recording.path.name, run.plot)
    _tell(verdict, run, recording)
    sys.exit(130 if is_stopped else verdict.status)


def _tell(verdict: Verdict, run: ReplayFlags, recording: Recording) -> None:
    if run.json:
        print(writer.dumps(verdict.as_json(str(recording.path)), indent=2))
        return
    print(text(verdict, str(recording.path), lambda line: coloured(line, "red", sys.stdout)))
    if run.plot is not None:
        is_drawn = bool(verdict.comparison.dimensions)
        print(f"written      {run.plot}" if is_drawn else "written      no picture: there is nothing to draw")
    print(f"\n{coloured(last_line(verdict), 'green' if verdict.is_passed else 'red', sys.stdout)}", flush=True)


@contextmanager
def _progress() -> Iterator[OnStep]:
    """A line on a terminal, below what the policy prints, which is gone at the end."""
    line = ProgressLine(beside_pipe=True)
    shown_at = 0.0

    def show(gathered: Gathered) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at >= _SHOWN_EVERY_S:
            shown_at = now
            line.show(f"session {gathered.sessions}, {counted(gathered.requests, 'request')}")

    with line.shared():
        line.show("loading")
        try:
            yield show
        finally:
            line.start_line()
