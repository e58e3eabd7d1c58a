"""What recording costs a server and its robots.

    python benchmarks/recordings.py [--rounds 8] [--seconds 3] [--hz 50] [--kinds inline thread 10ms] [--quick]

P3, ALOHA's 2.77 MB with pictures like a camera's, is asked for at 50 Hz of servers that record nothing, the messages,
and the messages with views, in turns by one client within one run. Processor time is the server's own, all threads, by
the kernel's count; the writing process's stands beside it. Round trips are those of the client. A ratio is the median
over the rounds, with quartiles; nothing is left out of a recording that counts. "a copy": each message is copied once
and dropped, which is the write itself as far as the server does it; the mark of processor time is over that. "a bare
write": the copy lies in shared memory, and a process writes it to a file as it is: the least that a recording can cost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import numpy as np
from measuring.harness import Serving, all_started, machine, our_server, told

from policyserve.bench.measures import Spread, quantiles, ratios
from policyserve.bench.raw import RawPeer
from policyserve.core.messages import Observation

_CPU_MARK, _P99_MARK = 1.05, 1.1
_WAYS: Mapping[str, tuple[str, ...]] = {
    "nothing": (),
    "nothing, again": (),
    "a copy": (),
    "a bare write": (),
    "messages": ("--no-record-views",),
    "messages and views": (),
}


@dataclass
class Side:
    """One server, and what was found of it, a figure for each round."""

    serving: Serving
    peer: RawPeer
    frames: list[bytes]
    cpu_ms: list[float] = field(default_factory=list)  # for each request, of the server
    writer_ms: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def drive(self, seconds: float, hz: float) -> None:
        """Ask at fixed times; a round trip counts from when it was sent."""
        trips: list[float] = []
        cpu, writer = self._cpu_s()
        begun = time.perf_counter()
        for turn in range(int(seconds * hz)):
            rest = begun + turn / hz - time.perf_counter()
            if rest > 0:
                time.sleep(rest)
            sent_at = time.perf_counter()
            self.peer.exchange(self.frames[turn % len(self.frames)])
            trips.append(time.perf_counter() - sent_at)
        cpu_after, writer_after = self._cpu_s()
        found = quantiles(trips)
        self.cpu_ms.append((cpu_after - cpu) * 1e3 / len(trips))
        self.writer_ms.append((writer_after - writer) * 1e3 / len(trips))
        self.p50_ms.append(found.p50 * 1e3)
        self.p99_ms.append(found.p99 * 1e3)

    def _cpu_s(self) -> tuple[float, float]:
        """Of the server, and of the processes that it has started."""
        server = self.serving.process.pid
        return cpu_s(server), sum(map(cpu_s, children_of(server)))


def cpu_s(pid: int) -> float:
    """Seconds that a process's threads have run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def children_of(pid: int) -> list[int]:
    """Process ids."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def observation(number: int) -> Observation:
    """Three pictures of a smooth scene with a sensor's noise, and a state."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[0:480, 0:640]
    scene = 96 + 48 * np.sin((rows + 7 * number) / 37) + 48 * np.cos(columns / 53)
    names = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    cameras = {name: (scene + random.normal(0, 2, (3, 480, 640))).clip(0, 255).astype(np.uint8) for name in names}
    return {"images": cameras, "state": random.normal(size=14).astype(np.float32)}


def left_out(side: Side) -> int:
    """Requests that its recording lacks, as /metrics tells; 0 for a server that records nothing."""
    with urlopen(f"http://127.0.0.1:{side.serving.port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(
        int(float(line.split()[1])) for line in lines if line.startswith("policyserve_recording_left_out_total ")
    )


def measure(kind: str, rounds: int, seconds: float, hz: float) -> dict[str, Side]:
    """Ask all of them in turns; the first round is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        programs = {}
        for name, flags in _WAYS.items():
            records = ("--record", f"{folder}/{name}") if name.startswith("messages") else ()
            target = {"a copy": "drop", "a bare write": f"{folder}/bare"}.get(name)
            runs = ("-m", "measuring.copied", target) if target else ()
            programs[name] = our_server(f"measuring.policies:aloha_{kind}", *records, *flags, runs=runs)
        with all_started(programs) as up:
            sides: dict[str, Side] = {}
            for name, serving in up.items():
                peer = RawPeer(serving.url, "openpi", 30.0)
                sides[name] = Side(serving, peer, [peer.frame(observation(number), "openpi") for number in range(8)])
            for turn in range(-1, rounds):
                names = list(sides)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    sides[name].drive(seconds, hz)
                    time.sleep(0.2)  # what is behind must not burden the next
                if turn < 0:
                    for side in sides.values():
                        for figures in (side.cpu_ms, side.writer_ms, side.p50_ms, side.p99_ms):
                            figures.clear()
            for name, side in sides.items():
                if lost := left_out(side):
                    print(f"\n{name}: {lost} requests were left out of the recording")
                side.peer.close()
    return sides


def print_table(kind: str, sides: Mapping[str, Side]) -> None:
    """A row of Markdown for each server."""
    base, copied = sides["nothing"], sides["a copy"]
    for name, side in sides.items():
        cpu, of_copy = ratios(side.cpu_ms, base.cpu_ms), ratios(side.cpu_ms, copied.cpu_ms)
        p50, p99 = ratios(side.p50_ms, base.p50_ms), ratios(side.p99_ms, base.p99_ms)
        of_bare = ratios(side.p99_ms, sides["a bare write"].p99_ms)
        figures = (f"{median(one):.2f}" for one in (side.cpu_ms, side.p50_ms, side.p99_ms, side.writer_ms))
        told_ratios = ("1" if side is base else told(one) for one in (cpu, of_copy, p50, p99, of_bare))
        cells = " | ".join((kind, name, *figures, *told_ratios, verdict(name, of_copy, p99)))
        print(f"| {cells} |", flush=True)


def verdict(name: str, cpu: Spread, p99: Spread) -> str:
    """Whether the marks are met."""
    if not name.startswith("messages"):
        return ""
    marks = (("CPU", cpu, _CPU_MARK), ("p99", p99, _P99_MARK))
    missed = [f"{what} ≤ {mark:g}" for what, found, mark in marks if found.median > mark]
    return f"missed: {', '.join(missed)}" if missed else "met"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--hz", type=float, default=50.0)
    parser.add_argument("--kinds", nargs="+", default=["inline", "thread"], help="of policy: inline, thread, 10ms")
    parser.add_argument("--quick", action="store_true", help="two short rounds: signs and sizes only")
    arguments = parser.parse_args()
    rounds, seconds = (2, 0.4) if arguments.quick else (arguments.rounds, arguments.seconds)
    print(f"{machine()}\n")
    figures, ratio_names = (
        "server CPU ms | p50 ms | p99 ms | writer CPU ms",
        "CPU ratio | of a copy's | p50 ratio | p99 ratio | p99 of a bare write's",
    )
    print(f"| policy | recorded | {figures} | {ratio_names} | marks |")
    print("|---" * 12 + "|")
    for kind in arguments.kinds:
        print_table(kind, measure(kind, rounds, seconds, arguments.hz))


if __name__ == "__main__":
    main()
