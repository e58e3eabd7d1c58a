"""`policyserve bench`: drive a server as its robots would, and print where the time goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from policyserve import dialects
from policyserve.bench import plot, report
from policyserve.bench.figures import ENDINGS, new_figure
from policyserve.bench.machine import this_machine
from policyserve.bench.payloads import payload_for
from policyserve.bench.progress import progress_line
from policyserve.bench.run import Comparison, Result, Server, Settings, Step, compare, measure, prepare, sweep
from policyserve.bench.target import is_url, running
from policyserve.cli.arguments.configuration import ConfigurationFlags, read_configuration
from policyserve.cli.arguments.effective import end_if_printed
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.colours import coloured
from policyserve.cli.keys import key_from_environment, naming_variable
from policyserve.cli.targets import check_apart, check_target, people_read, write_json
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn_of_keys
from policyserve.client.address import without_key
from policyserve.core.dialect import has_client
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.nearest import nearest
from policyserve.policies import registry
from policyserve.policies.registry import check_given
from policyserve.transforms import jpeg

PROG = "policyserve bench"
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")


@dataclass(frozen=True)
class BenchFlags(ConfigurationFlags):
    """Drive a policy server and print round trips, where their time goes, answers and actions per second, errors.

    What stands behind `--` goes to `policyserve serve` where TARGET is a policy. A key that the server asks for is
    taken from the environment, POLICYSERVE_API_KEY.
    """

    target: Annotated[Positional[str], arg(metavar="TARGET")] = field(repr=False)
    """a server's ws://host:port, or a policy; for a policy a server is started."""
    against: str | None = field(default=None, repr=False)
    """A second server or policy: both are driven in turns, and the ratios are printed with their spread."""
    dialect: str = "auto"
    """openpi, wall_x, vibe_rl, vla_eval, xpolicylab, starvla, roboarena, dreamzero, vllm_omni, behavior1k, molmospaces,
    cosmos, gr00t (zmq://host:5555), lerobot (grpc://host:8080/POLICY); by HTTP json, openvla, openvla_oft, xvla,
    molmoact2, gr00t_http; auto: what the URL tells, or the server's greeting."""
    payload: str = "auto"
    """What to send: cartpole, libero (two 224x224 images), aloha (three 480x640), auto (what the server says it takes),
    or a .json file such as {"image": {"shape": [64, 64, 3], "dtype": "uint8"}, "prompt": {"text": "go"}}."""
    clients: int = 1
    """Connections that ask at the same time."""
    duration_s: float = 10.0
    """How long to measure, each server or step."""
    warmup_s: float = 1.0
    """How long to drive before that."""
    rate_hz: float | None = None
    """Requests per second of each client, due at fixed times; a round trip counts from when it was due. None: each
    client asks again as soon as it is answered."""
    sweep: bool = False
    """Find the largest number of clients that hold --rate-hz: p99 within its period, no errors."""
    max_clients: int = 1024
    """Where --sweep ends."""
    slices: int = 20
    """Turns of each server with --against."""
    timeout_s: float = 30.0
    """For each answer."""
    raw: bool = False
    """Send one prepared frame and count the answers undecoded: the server alone, closed loop."""
    images: Literal["raw", "jpeg", "auto"] = "raw"
    """How clients send pictures: raw, jpeg, or auto (jpeg where the network is slower than coding). What is sent is a
    smooth scene then, since random numbers are no picture."""
    jpeg_quality: int = 90
    """1 … 100: more looks better and takes more of the network."""
    json: Path | None = None
    """Write all figures to this file; `-` is stdout, and the table goes to stderr then."""
    plot: Path | None = None
    """Draw them to this file (.png, .svg, .pdf)."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        check_given(against=self.against)
        known = ("auto", *dialects.client_names(), *dialects.http_names())
        if self.dialect not in known:
            expected, near = ", ".join(known), nearest(self.dialect, known)
            if near is not None:
                raise ConfigError(f"--dialect: expected {expected}, got {self.dialect!r} (did you mean {near!r}?)")
            if not has_client(dialects.by_name(self.dialect)):  # raises ConfigError; it may be another package's
                told = "which only other programs' clients speak"
                raise ConfigError(f"--dialect: expected {expected}, got {self.dialect!r}, {told}")
        for name in ("clients", "slices", "max_clients"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("duration_s", "timeout_s"):
            self._check(name, getattr(self, name) > 0, "more than 0")
        self._check("warmup_s", self.warmup_s >= 0, "0 or more")
        self._check("rate_hz", self.rate_hz is None or self.rate_hz > 0, "more than 0")
        if self.sweep and (self.rate_hz is None or self.against or self.raw):
            wrong = (
                "--rate-hz, the rate that all clients are to hold" if self.rate_hz is None else "one server, not raw"
            )
            raise ConfigError(f"--sweep needs {wrong}")
        self._check("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 … 100")
        if self.images != "raw":
            if self.raw or self.dialect == "vibe_rl":
                other = (
                    "--raw, whose frame is prepared" if self.raw else "--dialect vibe_rl, which carries arrays alone"
                )
                raise ConfigError(f"--images {self.images} does not go with {other}")
            jpeg.require()
        if self.raw:
            self._check_raw()
        if self.raw and self.rate_hz is not None:
            raise ConfigError("--raw is a closed loop: it takes no --rate-hz")
        if self.payload != "auto":
            payload_for(self.payload, {}, "openpi")  # says what is wrong with it before a server is started

    def _check_raw(self) -> None:
        told = "--raw sends one prepared frame of a WebSocket"
        if self.dialect in dialects.http_names():
            raise ConfigError(f"{told}: --dialect {self.dialect} has none; leave --raw out")
        for url in (self.target, self.against):
            if url is not None and is_url(url) and not url.startswith("ws"):
                raise ConfigError(f"{told}: expected ws://host:port, got {without_key(url)}; else leave --raw out")

    def _check(self, name: str, is_fine: bool, bound: str) -> None:
        if not is_fine:
            raise ConfigError(f"--{name.replace('_', '-')}: expected {bound}, got {getattr(self, name)!r}")

    @property
    def settings(self) -> Settings:
        """The part that measuring needs."""
        return Settings(
            dialect=self.dialect,
            payload=self.payload,
            clients=self.clients,
            duration_s=self.duration_s,
            warmup_s=self.warmup_s,
            rate_hz=self.rate_hz,
            timeout_s=self.timeout_s,
            slices=self.slices,
            is_raw=self.raw,
            images=self.images,
            jpeg_quality=self.jpeg_quality,
            api_key=key_from_environment(),
        )


def main(argv: Sequence[str]) -> None:
    """Measure what the arguments say; exits with 1 if nothing could be measured, with 2 for wrong arguments."""
    own, serve_flags = list(argv), []
    if "--" in own:
        split = own.index("--")
        own, serve_flags = own[:split], own[split + 1 :]
    given = read_configuration(own, has_policy=False, environment={}).given_or_end(BenchFlags, own)
    flags = parse(BenchFlags, PROG, own, given=given)
    end_if_printed(flags, given)
    try:
        _check_targets(flags)
        warn_of_keys(flags.target, flags.against)
        _check_files(flags)
        _bench(flags, serve_flags)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    except PolicyserveError as error:
        complain(naming_variable(str(error)), FAILURE)
    except KeyboardInterrupt:
        complain("interrupted before there was anything to show", 130)


def _check_targets(flags: BenchFlags) -> None:
    for name in (flags.target, flags.against):
        if name is None or is_url(name):
            continue
        shown = without_key(name)
        if "@" in shown:  # no policy has such a name, and a server's process would show it to everybody
            raise ConfigError(f"expected ws://host:port or a policy, got {shown!r} (did you mean ws://{shown}?)")
        if _HOST_AND_PORT.fullmatch(name):
            raise ConfigError(f"expected ws://host:port or a policy, got {name!r} (did you mean ws://{name}?)")
        try:
            registry.find(name)
        except ConfigError as error:
            raise ConfigError(f"{error} (a server's address is ws://host:port)") from error


def _check_files(flags: BenchFlags) -> None:
    check_target("json", flags.json)
    check_target("plot", flags.plot, ENDINGS)
    check_apart(json=flags.json, plot=flags.plot)
    if flags.plot is not None:
        new_figure()


def _bench(flags: BenchFlags, serve_flags: Sequence[str]) -> None:
    settings = flags.settings
    with ExitStack() as stack:
        names = [flags.target] if flags.against is None else [flags.target, flags.against]
        places = [stack.enter_context(running(name, serve_flags, flags.dialect)) for name in names]
        shown = [without_key(name) if is_url(name) else name for name in names]
        servers = [prepare(name, place, settings) for name, place in zip(shown, places, strict=True)]
        if flags.sweep:
            _sweep(servers[0], flags, settings)
        elif len(servers) == 2:
            _compare((servers[0], servers[1]), flags, settings)
        else:
            _measure(servers[0], flags, settings)


def _measure(server: Server, flags: BenchFlags, settings: Settings) -> None:
    with progress_line(people_read(flags.json)) as progress:
        result = measure(server, settings, progress.show)
    _tell(flags, report.text(result, settings, _highlight(flags)))
    _keep(flags, settings, [result], None)


def _compare(servers: tuple[Server, Server], flags: BenchFlags, settings: Settings) -> None:
    with progress_line(people_read(flags.json)) as progress:
        comparison = compare(servers, settings, progress.show)
    _tell(flags, report.comparison_text(comparison, settings, _highlight(flags)))
    _keep(flags, settings, comparison.results, comparison)


def _sweep(server: Server, flags: BenchFlags, settings: Settings) -> None:
    _tell(flags, report.sweep_heading(server, settings))
    with progress_line(people_read(flags.json)) as progress:
        steps = sweep(
            server, settings, flags.max_clients, progress.show, lambda step: progress.say(report.step_text(step))
        )
    machine = this_machine()
    _tell(flags, report.sweep_text(steps, settings, flags.max_clients, machine))
    write_json("json", flags.json, report.as_json([], settings, steps, machine))
    if flags.plot is not None and steps:
        plot.plot_sweep(steps, settings, server.name, flags.plot)


def _keep(
    flags: BenchFlags, settings: Settings, results: Sequence[Result], found: Comparison | Sequence[Step] | None
) -> None:
    """Write the files that were asked for; exits with 1 if a server answered nothing."""
    write_json("json", flags.json, report.as_json(results, settings, found, this_machine()))
    silent = [result.server.name for result in results if not result.tally.answers]
    if silent:
        complain(f"no answer from {' and '.join(silent)}", FAILURE)
    if flags.plot is not None:
        plot.plot_results(results, flags.plot)


def _tell(flags: BenchFlags, text: str) -> None:
    print(text, file=people_read(flags.json), flush=True)


def _highlight(flags: BenchFlags) -> report.Highlight:
    return lambda row: coloured(row, "yellow", people_read(flags.json))
