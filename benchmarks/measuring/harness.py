"""Servers in processes of their own, how long to measure, and the rows of a table."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from policyserve.bench.measures import Spread

FOLDER = Path(__file__).parents[1]
_URL = re.compile(r"url +(\S+)")
_WHAT = 68  # columns
_STOP_S = 15.0


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    starts: fresh starts of all processes of a comparison, over which quartiles are told. slices: turns of each side in
    one start. slice_s: seconds of one turn. alone_s: seconds of what is measured alone. is_quick: fewer sessions and
    shorter calls, where a mark names their number.
    """

    starts: int = 5
    slices: int = 8
    slice_s: float = 0.15
    alone_s: float = 3.0
    is_quick: bool = False


QUICK = Effort(1, 3, 0.05, 0.4, is_quick=True)


def add_effort(parser: ArgumentParser) -> None:
    """Flags that say how long to measure, for effort_of()."""
    parser.add_argument("--quick", action="store_true", help="one start, short turns: signs and sizes only")
    parser.add_argument("--starts", type=int, help=f"fresh starts of all processes, {Effort.starts} if not given")
    parser.add_argument("--slices", type=int, help=f"turns of each side in one start, {Effort.slices} if not given")
    parser.add_argument("--slice-s", type=float, help=f"seconds of a turn, {Effort.slice_s} if not given")


def effort_of(arguments: Namespace) -> Effort:
    """What the flags ask for."""
    effort = QUICK if arguments.quick else Effort()
    given = {name: getattr(arguments, name) for name in ("starts", "slices", "slice_s")}
    return replace(effort, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Row:
    """One mark. is_met: None where it was not measured."""

    what: str
    mark: str
    measured: str
    is_met: bool | None = None


def told(found: Spread, digits: int = 2) -> str:
    """A median with its quartiles."""
    return f"{found.median:.{digits}f} ({found.low:.{digits}f} … {found.high:.{digits}f})"


def ratio_row(what: str, found: Spread, most: float) -> Row:
    """A mark that bounds a ratio of round trips."""
    return Row(what, f"≤ {most:g}", told(found), found.median <= most)


def skipped(what: str, mark: str, why: str) -> Row:
    """A mark that cannot be measured here."""
    return Row(what, mark, f"not measured: {why}")


@dataclass(frozen=True)
class Program:
    """A server's program, Python's arguments. It prints `url …` and `ready`. tree: the checkout it is of."""

    arguments: tuple[str, ...]
    tree: Path = FOLDER.parent


@dataclass(frozen=True)
class Serving:
    """A server that is ready."""

    process: subprocess.Popen[str]
    url: str
    seconds: float  # from its start to being ready

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 0


def our_server(policy: str, *flags: str, tree: Path = FOLDER.parent, runs: tuple[str, ...] = ()) -> Program:
    """`policyserve serve`, on a free port or where the flags say. runs: the program that stands in for its module."""
    place = () if "--uds" in flags else ("--host", "127.0.0.1", "--port", "0")
    return Program((*(runs or ("-m", "policyserve.cli")), "serve", policy, *place, *flags), tree)


def stand_in(program: str, *flags: str) -> Program:
    """Another server's stand-in, of rivals/."""
    return Program((f"rivals/{program}.py", *flags))


@contextmanager
def started(program: Program) -> Iterator[Serving]:
    """A program that is ready, in the benchmarks' folder; ended afterwards."""
    with _launched(program) as launched:
        yield launched.ready()


@contextmanager
def all_started(programs: Mapping[str, Program]) -> Iterator[dict[str, Serving]]:
    """Programs that are ready, by name; they start at the same time."""
    with ExitStack() as stack:
        launched = {name: stack.enter_context(_launched(program)) for name, program in programs.items()}
        yield {name: one.ready() for name, one in launched.items()}


class _Launched:
    """A program that was started."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._started_at = time.perf_counter()
        self._rest: threading.Thread | None = None  # reads what it prints once it is ready
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by end()
        source = str(program.tree / "src")
        path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self._process = subprocess.Popen(
            [sys.executable, "-u", *program.arguments],
            cwd=program.tree / FOLDER.name,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )

    def ready(self) -> Serving:
        """Wait until it is; SystemExit with what it said if it ends before."""
        assert self._process.stdout is not None
        url = ""
        for line in self._process.stdout:
            found = _URL.search(line)
            url = found.group(1) if found else url
            if line.startswith("ready"):
                break
        else:
            self._process.wait()
            self._said.seek(0)
            raise SystemExit(f"{' '.join(self._program.arguments)} did not start: {self._said.read()[-500:]}")
        seconds = time.perf_counter() - self._started_at
        self._rest = threading.Thread(target=self._process.stdout.read, daemon=True)
        self._rest.start()  # what it prints later blocks nobody
        return Serving(self._process, url.replace("localhost", "127.0.0.1"), seconds)

    def end(self) -> None:
        """Terminate it and wait for that."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._rest is not None:
            self._rest.join(_STOP_S)  # a child of the server's may hold its output open
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._said.close()


@contextmanager
def _launched(program: Program) -> Iterator[_Launched]:
    launched = _Launched(program)
    try:
        yield launched
    finally:
        launched.end()


def minor_faults(pid: int) -> int:
    """Page faults of a process so far that needed no disk."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def resident_kb(pid: int) -> int:
    """Memory that a process holds, in kB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


def machine() -> str:
    """Where the figures come from."""
    models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else []
    cpu = models[0] if models else platform.processor()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "websockets", "msgpack"))
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {packages}{load}"


def print_rows(rows: Sequence[Row]) -> None:
    """The table of marks."""
    print(f"{'what':<{_WHAT}} {'mark':<12} {'measured':<34}")
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[row.is_met]
        print(f"{row.what:<{_WHAT}} {row.mark:<12} {row.measured:<34} {verdict}", flush=True)


def bounded(value: float, unit: str, digits: int = 2) -> str:
    """A figure with its unit."""
    return f"{value:.{digits}f} {unit}"


def is_at_most(what: str, value: float, most: float, unit: str, note: Any = "") -> Row:
    """A mark that bounds a figure."""
    measured = f"{bounded(value, unit)}{f'  {note}' if note else ''}"
    return Row(what, f"≤ {most:g} {unit}", measured, value <= most)
