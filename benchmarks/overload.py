"""Offer a server more than its policy can do and print who is answered, who is refused, and how long the answered wait.

    python benchmarks/overload.py [--seconds 10] [--sessions 8] [--cost-ms 20] [--max-batch 4] [--max-queue-ms 250]

The server is a process of its own; its policy sleeps --cost-ms for any batch. Every session asks at its own random
times whatever the answers (an open loop), and a latency counts from the time at which a request was due. told: p50
until a refusal came, behind the answers before it. worst share: of the session that fared worst, its answers as a share
of what it asked for or of an equal part of all answers, whichever is less.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from policyserve import ServerConfig
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects.openpi import OpenPI
from policyserve.policies.stacked import StackedPolicy
from policyserve.server.policy_server import PolicyServer

LOADS = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
WIRE = OpenPI()
LAST_ANSWERS_S = 3.0


@dataclass
class Tally:
    """What one session saw."""

    asked: int = 0
    answered_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    due: deque[float] = field(default_factory=deque)  # of the requests without an answer
    has_asked_all: bool = False


async def serve(flags: argparse.Namespace) -> None:
    """Serve the sleeping policy and print the port."""

    def forward(rows: Mapping[str, Any]) -> Any:
        time.sleep(flags.cost_ms / 1e3)
        return rows["state"][:, :7]

    logging.basicConfig(level=logging.INFO)  # as the command does: a refusal's log line is part of its cost
    spec = PolicySpec("sleeper", {"state": ArraySpec((8,))}, ArraySpec((7,)), max_batch=flags.max_batch)
    config = ServerConfig(max_queue_ms=flags.max_queue_ms)
    async with PolicyServer(StackedPolicy(forward, spec), "127.0.0.1", 0, config=config) as server:
        await server.ready()
        print(server.address.port, flush=True)
        await asyncio.Event().wait()


async def ask(connection: ClientConnection, tally: Tally, rate: float, end: float, dice: random.Random) -> None:
    """Send at random times, `rate` a second on average."""
    observation = WIRE.write_request({"state": np.zeros(8, np.float32)})
    due = time.monotonic() + dice.expovariate(rate)
    while due < end:
        await asyncio.sleep(due - time.monotonic())
        tally.asked += 1
        tally.due.append(due)
        await connection.send(observation)  # type: ignore[arg-type]
        due += dice.expovariate(rate)


async def listen(connection: ClientConnection, tally: Tally) -> None:
    """Answers come in the order of the requests, refusals among them, as text."""
    with suppress(ConnectionClosed):
        async for reply in connection:
            took_ms = (time.monotonic() - tally.due.popleft()) * 1e3
            (tally.refused_ms if isinstance(reply, str) else tally.answered_ms).append(took_ms)
            if tally.has_asked_all and not tally.due:
                return


async def talk(url: str, rate: float, seconds: float, number: int) -> Tally:
    """One session's life."""
    tally = Tally()
    async with connect(url, compression=None, max_size=None) as connection:
        await connection.recv()  # the greeting
        listening = asyncio.ensure_future(listen(connection, tally))
        await ask(connection, tally, rate, time.monotonic() + seconds, random.Random(number))
        tally.has_asked_all = True
        await asyncio.wait([listening], timeout=LAST_ANSWERS_S if tally.due else 0.0)
    await listening
    return tally


async def offer(url: str, load: float, flags: argparse.Namespace) -> str:
    """Offer `load` times the capacity; returns a row of the table."""
    rate = load * flags.max_batch / flags.cost_ms * 1e3
    talks = [talk(url, rate / flags.sessions, flags.seconds, number) for number in range(flags.sessions)]
    tallies = await asyncio.gather(*talks)
    answered = sorted(took for tally in tallies for took in tally.answered_ms)
    refused = sorted(took for tally in tallies for took in tally.refused_ms)
    counts = (sum(tally.asked for tally in tallies), len(answered), len(refused))
    asked_s, answered_s, refused_s = (f"{count / flags.seconds:.0f}" for count in counts)
    p50, p99 = (f"{answered[int(len(answered) * share)]:.0f}" for share in (0.5, 0.99))
    told = f"{refused[len(refused) // 2]:.0f}" if refused else ""
    equal = len(answered) / len(tallies)
    worst = min(len(tally.answered_ms) / min(tally.asked, equal) for tally in tallies)
    lost = sum(len(tally.due) for tally in tallies)
    cells = (f"{load:.1f}", asked_s, answered_s, refused_s, p50, p99, told, f"{worst:.2f}", str(lost))
    return f"| {' | '.join(cells)} |"


async def measure(url: str, flags: argparse.Namespace) -> None:
    await offer(url, 0.5, argparse.Namespace(**{**vars(flags), "seconds": 1.0}))  # the server learns what a batch takes
    print("| load | offered /s | answered /s | refused /s | p50 ms | p99 ms | told ms | worst share | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    for load in LOADS:
        print(await offer(url, load, flags), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Offer a server more than its policy can do.")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each load")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--cost-ms", type=float, default=20.0, help="of a batch of any size")
    parser.add_argument("--max-batch", type=int, default=4)
    parser.add_argument("--max-queue-ms", type=float, default=ServerConfig().max_queue_ms)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        asyncio.run(serve(flags))
        return
    command = [sys.executable, __file__, "--serve", *sys.argv[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            asyncio.run(measure(f"ws://127.0.0.1:{int(server.stdout.readline())}/openpi", flags))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
