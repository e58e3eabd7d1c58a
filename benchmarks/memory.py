"""Ways to have memory for messages, side by side: what a round trip takes, page faults, and what a rush leaves.

    python benchmarks/memory.py [--only P3 …] [--quick] [--starts 3]

Every way is a server of this tree in a process of its own, patched by measuring/allocated.py; one client process asks
all of them in turns, in several fresh starts. Per case and way: the round trip over that of the way that the package
has (median and quartiles), and page faults of the server per message. Then a rush of 64 clients with camera frames:
resident memory before, at its peak, at its end with everybody connected and silent, and 22 seconds later.

    kept      as it is: a bytearray that nobody fills with zeros; the C library keeps what is freed (core/memory.py)
    released  the same, and the C library does as it does by default
    empty     numpy.empty(), and the C library does as it does by default
    zeros     bytearray(size), likewise
    pool      buffers used again when nobody holds a view: bytearrays, from 1 MiB on anonymous shared mappings
    private   the same with private mappings
    heap      the same with bytearrays alone

P1 is CartPole (70 bytes), P2 LIBERO (301 kB), P3 ALOHA (2.77 MB); mixed: 40 bytes to 3.5 MB, each message another.
"""

from __future__ import annotations

import argparse
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from measuring.clients import observation_for
from measuring.harness import (
    Effort,
    Program,
    Serving,
    add_effort,
    all_started,
    effort_of,
    machine,
    our_server,
    resident_kb,
    told,
)
from measuring.turns import Asker, faults_per_answer, in_turns, median_us, trip_ratio

from policyserve.bench.raw import RawPeer
from policyserve.core.errors import RemoteError

WAYS = ("kept", "released", "empty", "zeros", "pool", "private", "heap")
_RUSH_CLIENTS, _RUSH_ROUNDS = 64, 5
_TIDIED_S = 22.0  # the server tidies every ten seconds, and waits for ten without large messages


@dataclass(frozen=True)
class Case:
    """Who asks what. runs: in the event loop, in a thread, or in a process of its own."""

    payload: str
    runs: str
    clients: int = 1

    @property
    def short(self) -> str:
        return {"cartpole": "P1", "libero": "P2", "aloha": "P3"}.get(self.payload, self.payload)

    def program(self, way: str) -> Program:
        """The server of one way."""
        policy = "anything" if self.payload == "mixed" else self.payload
        kind = "inline" if self.runs == "inline" else "thread"
        flags = ("--isolate", "process") if self.runs == "process" else ()
        return our_server(f"measuring.policies:{policy}_{kind}", *flags, runs=("-m", "measuring.allocated", way))

    def asker(self, way: str) -> Asker:
        """The clients of one way."""
        if self.payload == "mixed":
            return Asker(way, "mixed", "mixed", clients=self.clients)
        return Asker(way, self.payload, clients=self.clients)


CASES = (
    Case("cartpole", "inline"),
    Case("cartpole", "thread", 64),
    Case("libero", "inline"),
    Case("libero", "thread"),
    Case("libero", "process"),
    Case("libero", "thread", 64),
    Case("aloha", "inline"),
    Case("aloha", "thread"),
    Case("aloha", "process"),
    Case("aloha", "thread", 64),
    Case("mixed", "thread"),
    Case("mixed", "thread", 16),
)


def print_case(case: Case, effort: Effort) -> None:
    """Two rows of Markdown: round trips and page faults."""
    askers = {way: case.asker(way) for way in WAYS}
    starts = in_turns({way: case.program(way) for way in WAYS}, askers, effort)
    what = f"{case.short}, {case.runs}, {case.clients} client{'s' if case.clients > 1 else ''}"
    first = f"{median_us(starts, WAYS[0]):.0f} µs"
    ratios = [told(trip_ratio(starts, way, WAYS[0])) for way in WAYS[1:]]
    print(f"| {what} | {' | '.join([first, *ratios])} |")
    faults = [f"{faults_per_answer(starts, way).median:.1f}" for way in WAYS]
    print(f"| … page faults | {' | '.join(faults)} |", flush=True)


def print_rush(effort: Effort) -> None:
    """What a rush leaves, a row for each way."""
    print(f"\n| {_RUSH_CLIENTS} clients, P3; MiB | before | peak | silent | {_TIDIED_S:g} s later |")
    print("|---|---|---|---|---|")
    case = Case("aloha", "thread", _RUSH_CLIENTS)
    for way in WAYS:
        with all_started({way: case.program(way)}) as up:
            figures = [f"{kb / 1024:.0f}" for kb in rush(up[way], 1.0 if effort.is_quick else _TIDIED_S)]
        print(f"| {way} | {' | '.join(figures)} |", flush=True)


def rush(serving: Serving, later_s: float) -> list[int]:
    """Resident kB before a rush, at its peak, at its end, and later."""
    pid = serving.process.pid
    with ExitStack() as stack:
        peers = [RawPeer(serving.url, "openpi", 60.0) for _ in range(_RUSH_CLIENTS)]
        for peer in peers:
            stack.callback(peer.close)
        frame = peers[0].frame(observation_for("aloha"), "openpi")
        before, peak = resident_kb(pid), 0
        for _ in range(_RUSH_ROUNDS):
            asking = [threading.Thread(target=_ask, args=(peer, frame)) for peer in peers]
            for thread in asking:
                thread.start()
            while any(thread.is_alive() for thread in asking):
                peak = max(peak, resident_kb(pid))
                time.sleep(0.002)
        silent = resident_kb(pid)
        time.sleep(later_s)
        return [before, peak, silent, resident_kb(pid)]


def _ask(peer: RawPeer, frame: bytes) -> None:
    with suppress(RemoteError):  # a refusal is an answer
        peer.exchange(frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("P1", "P2", "P3", "mixed", "rush"), help="these alone")
    add_effort(parser)
    arguments = parser.parse_args()
    effort = effort_of(arguments)
    started_at = time.monotonic()
    print(f"{machine()}\n\n| asked for | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    for case in CASES:
        if not arguments.only or case.short in arguments.only:
            print_case(case, effort)
    if not arguments.only or "rush" in arguments.only:
        print_rush(effort)
    print(f"\n{time.monotonic() - started_at:.0f} s")


if __name__ == "__main__":
    main()
