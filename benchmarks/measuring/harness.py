"""Servers in processes of their own, clients that take turns, and a row of a table."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from policyserve.bench.fleet import Fleet
from policyserve.bench.measures import Spread, quantiles, ratios
from policyserve.bench.tally import Tally
from policyserve.core.messages import Observation

FOLDER = Path(__file__).parents[1]
_URL = re.compile(r"url +(\S+)")
_WHAT = 68  # columns


@dataclass(frozen=True)
class Effort:
    """How long to measure: turns of every client and the seconds of each."""

    slices: int = 20
    slice_s: float = 0.3

    @property
    def total_s(self) -> float:
        """Of one client."""
        return self.slices * self.slice_s


QUICK = Effort(6, 0.15)


@dataclass(frozen=True)
class Row:
    """One mark. is_met: None where it was not measured."""

    what: str
    mark: str
    measured: str
    is_met: bool | None = None


def ratio_row(what: str, found: Spread, most: float) -> Row:
    """A mark that bounds a ratio of round trips."""
    return Row(what, f"≤ {most:g}", f"{found.median:.3f} ({found.low:.3f} … {found.high:.3f})", found.median <= most)


def skipped(what: str, mark: str, why: str) -> Row:
    """A mark that cannot be measured here."""
    return Row(what, mark, f"not measured: {why}")


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


@contextmanager
def serve(policy: str, *flags: str) -> Iterator[Serving]:
    """`policyserve serve`, on a free port or where the flags say."""
    place = () if "--uds" in flags else ("--host", "127.0.0.1", "--port", "0")
    with started("-m", "policyserve.cli", "serve", policy, *place, *flags) as serving:
        yield serving


@contextmanager
def rival(program: str, *flags: str) -> Iterator[Serving]:
    """A stand-in of rivals/."""
    with started(f"rivals/{program}.py", *flags) as serving:
        yield serving


def takes_flag(flag: str) -> bool:
    """Whether `policyserve serve` has a flag."""
    command = [sys.executable, "-m", "policyserve.cli", "serve", "cartpole_ppo", "--help"]
    return flag in subprocess.run(command, text=True, capture_output=True, check=True).stdout


def take_turns(fleets: Mapping[str, Fleet], effort: Effort) -> dict[str, list[Tally]]:
    """Drive every fleet for a slice, again and again, each time another first; gives each one's tallies, by slice."""
    names = list(fleets)
    tallies: dict[str, list[Tally]] = {name: [] for name in names}
    for fleet in fleets.values():
        fleet.drive(Tally(), effort.slice_s)
    for turn in range(effort.slices):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            tally = Tally()
            fleets[name].drive(tally, effort.slice_s)
            if not tally.answers:
                raise SystemExit(f"{name} answered nothing: {dict(tally.examples)}")
            tallies[name].append(tally)
    return tallies


def trip_ratio(tallies: Mapping[str, Sequence[Tally]], one: str, other: str) -> Spread:
    """The median round trip of one over that of the other, slice by slice."""
    medians = {name: [quantiles(tally.trips_s).p50 for tally in tallies[name]] for name in (one, other)}
    return ratios(medians[one], medians[other])


def median_us(tallies: Sequence[Tally]) -> float:
    """The median round trip of all slices, in µs."""
    return quantiles([trip for tally in tallies for trip in tally.trips_s]).p50 * 1e6


class TcpFleet:
    """One client of rivals/tcp.py: it sends as many bytes as a request has and reads as many as a reply has."""

    def __init__(self, url: str, request_bytes: int, reply_bytes: int) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = bytes(request_bytes)
        self._reply = memoryview(bytearray(reply_bytes))

    def drive(self, tally: Tally, seconds: float) -> None:
        start = time.perf_counter()
        while (sent := time.perf_counter()) < start + seconds:
            self._socket.sendall(self._request)
            filled = 0
            while filled < len(self._reply):
                count = self._socket.recv_into(self._reply[filled:])
                assert count, "the server ended"
                filled += count
            tally.answered(sent, sent, time.perf_counter(), {})
        tally.seconds += time.perf_counter() - start

    def close(self) -> None:
        self._socket.close()


class OpenpiClient:
    """PyPI's openpi-client in a process of its own; python: an interpreter that has it."""

    def __init__(self, python: str, port: int, payload: str) -> None:
        command = [python, "rivals/unmodified_client.py", "ws://127.0.0.1", str(port), payload]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=FOLDER, text=True, stdin=pipe, stdout=pipe)
        self._ask("")

    def drive(self, tally: Tally, seconds: float) -> None:
        for trip in json.loads(self._ask(f"{seconds}\n")):
            tally.answered(0.0, 0.0, trip, {})
        tally.seconds += seconds

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        assert told, "openpi-client ended"
        return told


def observation_for(payload: str) -> Observation:
    """One of the known payloads."""
    from policyserve.bench.payloads import payload_for

    return payload_for(payload, {}, "openpi").observation


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


@contextmanager
def started(*arguments: str) -> Iterator[Serving]:
    """A program that prints `url …` and `ready`, in the benchmarks' folder; ended afterwards."""
    started_at = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-u", *arguments]
        process = subprocess.Popen(command, cwd=FOLDER, text=True, stdout=subprocess.PIPE, stderr=said)
        try:
            assert process.stdout is not None
            url = ""
            for line in process.stdout:
                found = _URL.search(line)
                url = found.group(1) if found else url
                if line.startswith("ready"):
                    break
            else:
                process.wait()
                said.seek(0)
                raise SystemExit(f"{' '.join(arguments)} did not start: {said.read()[-500:]}")
            threading.Thread(target=process.stdout.read, daemon=True).start()  # what it prints later blocks nobody
            yield Serving(process, url.replace("localhost", "127.0.0.1"), time.perf_counter() - started_at)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def bounded(value: float, unit: str, digits: int = 2) -> str:
    """A figure with its unit."""
    return f"{value:.{digits}f} {unit}"


def is_at_most(what: str, value: float, most: float, unit: str, note: Any = "") -> Row:
    """A mark that bounds a figure."""
    told = f"{bounded(value, unit)}{f'  {note}' if note else ''}"
    return Row(what, f"≤ {most:g} {unit}", told, value <= most)
