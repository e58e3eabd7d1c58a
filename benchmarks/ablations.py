"""Switch each piece of the server's machinery off in turn and print what it is worth, and where.

    python benchmarks/ablations.py [--only "learned layouts" uvloop …] [--quick] [--starts 3]

Two servers of this tree, in processes of their own, one of them without the piece (measuring/ablated.py), are asked in
turns by one client process. A figure is what the server without the piece has over what the server with it has: the
median over fresh starts of everything, and the quartiles. Above 1 for a round trip, and below 1 for answers per second,
the piece is worth having. The control has nothing switched off: what it shows is noise.

P1 is CartPole (70 bytes), P2 LIBERO (301 kB), P3 ALOHA (2.77 MB). inline: in the event loop; thread: in the policy's
own; 5ms: a policy that takes 5 ms for any batch of up to 32; demo: cartpole_ppo, inline, in batches.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from measuring.harness import Effort, Program, Serving, add_effort, all_started, effort_of, machine, our_server, told
from measuring.turns import Asker, Sides, ask_in_turns, in_turns, rate_ratio, trip_ratio

from policyserve.bench.measures import Spread

_SHORT = {"cartpole": "P1", "libero": "P2", "aloha": "P3"}
_WATCHED = "live page, somebody looking"
_ASKS_EVERY_S = 0.4  # as the page does
_FLAGS = {
    "gathering by habit": ("--max-wait-ms", "0"),
    "busy polling": ("--busy-poll-us", "0"),
    "metrics": ("--no-metrics",),
    "live page": ("--no-live",),
    _WATCHED: ("--no-live",),
}


@dataclass(frozen=True)
class Case:
    """A piece and where it is measured. kind: of the policy, inline, thread, 5ms, or the demo that batches inline."""

    piece: str
    kind: str
    payload: str
    clients: int = 1
    way: str = "raw"

    def __str__(self) -> str:
        client = {
            "raw": "raw client",
            "stepping": "stepping client",
            "ours": "`Client`",
            "ours, asleep": "`Client` that polls neither",
        }[self.way]
        return f"{_SHORT[self.payload]}, {self.kind}, {self.clients} {client}{'s' if self.clients > 1 else ''}"


CASES = (
    Case("control", "inline", "cartpole"),
    Case("control", "inline", "aloha"),
    Case("control", "thread", "libero", 8),
    Case("learned layouts", "inline", "cartpole"),
    Case("learned layouts", "inline", "libero"),
    Case("learned layouts", "inline", "aloha"),
    Case("reply templates", "inline", "cartpole"),
    Case("reply templates", "inline", "cartpole", 32),
    Case("shared turns", "demo", "cartpole", 8),
    Case("shared turns", "demo", "cartpole", 32),
    Case("busy polling", "inline", "cartpole"),
    Case("busy polling", "inline", "cartpole", 1, "ours"),
    Case("busy polling", "inline", "libero"),
    Case("busy polling", "thread", "cartpole"),
    Case("busy polling", "inline", "cartpole", 8),
    Case("gathering by habit", "5ms", "cartpole", 8),
    Case("gathering by habit", "5ms", "cartpole", 32),
    Case("gathering by habit", "5ms", "cartpole", 8, "stepping"),
    Case("gathering by habit", "5ms", "cartpole", 32, "stepping"),
    Case("gathering by habit", "5ms", "libero", 8),
    Case("preparing ahead", "5ms", "libero", 64),
    Case("freed memory kept", "inline", "aloha"),
    Case("freed memory kept", "thread", "libero", 64),
    Case("freed memory kept", "thread", "aloha", 16),
    Case("few frames a turn", "inline", "cartpole"),
    Case("few frames a turn", "inline", "cartpole", 32),
    Case("metrics", "inline", "cartpole"),
    Case("metrics", "inline", "cartpole", 32),
    Case("live page", "inline", "cartpole"),
    Case("live page", "inline", "cartpole", 32),
    Case(_WATCHED, "inline", "cartpole"),
    Case(_WATCHED, "inline", "cartpole", 32),
    Case(_WATCHED, "thread", "libero", 8),
    Case("own framing", "inline", "cartpole"),
    Case("own framing", "inline", "libero"),
    Case("own framing", "inline", "aloha"),
    Case("own framing", "thread", "libero", 32),
    *(
        Case("uvloop", kind, payload, clients)
        for kind in ("inline", "thread")
        for payload, clients in (("cartpole", 1), ("cartpole", 8), ("cartpole", 32), ("libero", 1), ("libero", 32))
    ),
    Case("uvloop", "inline", "aloha"),
    Case("uvloop", "thread", "aloha"),
    *(Case("uvloop", "5ms", payload, clients) for payload in ("cartpole", "libero") for clients in (1, 8, 32)),
)


@dataclass(frozen=True)
class Worth:
    """What a server without a piece has over what one with it has."""

    trip: Spread
    rate: Spread


def measure(case: Case, effort: Effort) -> Worth:
    """Ask both servers in turns."""
    servers = {"without": server(case, is_off=True), "with": server(case, is_off=False)}
    askers = {name: Asker(name, case.payload, case.way, clients=case.clients) for name in servers}
    starts = in_turns(servers, askers, effort) if case.piece != _WATCHED else watched_turns(servers, askers, effort)
    return Worth(trip_ratio(starts, "without", "with"), rate_ratio(starts, "without", "with"))


def watched_turns(servers: Mapping[str, Program], askers: Mapping[str, Asker], effort: Effort) -> list[Sides]:
    """Fresh starts, in which somebody looks at the live page of the server that has one."""
    starts: list[Sides] = []
    for _ in range(effort.starts):
        with all_started(servers) as up, looked_at(up["with"]):
            starts.append(ask_in_turns(up, askers, effort))
    return starts


@contextmanager
def looked_at(serving: Serving) -> Iterator[None]:
    """Ask for the live page's data, with a session's pictures, as often as the page does."""
    stop = threading.Event()

    def ask() -> None:
        session = 1
        while not stop.wait(_ASKS_EVERY_S):
            page = f"http://127.0.0.1:{serving.port}/live.json?pictures=1&session={session}"
            with urllib.request.urlopen(page) as answer:
                sessions = json.load(answer)["sessions"]
            session = sessions[0]["number"] if sessions else session

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def server(case: Case, is_off: bool) -> Program:
    """A server of the case, with its piece or without."""
    flags = _FLAGS.get(case.piece, ()) if is_off else ()
    off = case.piece if is_off and case.piece not in ("control", *_FLAGS) else "nothing"
    if case.piece == "uvloop" and not is_off:
        off = "asyncio"
    policy = "cartpole_ppo" if case.kind == "demo" else f"measuring.policies:{case.payload}_{case.kind}"
    return our_server(policy, *flags, runs=("-m", "measuring.ablated", off))


def print_table(cases: Sequence[Case], effort: Effort) -> None:
    """A row of Markdown for each case."""
    print("| piece | asked for | round trip, without / with | answers per second, without / with |\n|---|---|---|---|")
    for case in cases:
        worth = measure(case, effort)
        print(f"| {case.piece} | {case} | {told(worth.trip)} | {told(worth.rate)} |", flush=True)


def main() -> None:
    pieces = list(dict.fromkeys(case.piece for case in CASES))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=pieces, metavar="PIECE", help=f"of {', '.join(pieces)}")
    add_effort(parser)
    arguments = parser.parse_args()
    started_at = time.monotonic()
    print(f"{machine()}\n")
    print_table([case for case in CASES if case.piece in (arguments.only or pieces)], effort_of(arguments))
    print(f"\n{time.monotonic() - started_at:.0f} s")


if __name__ == "__main__":
    main()
