"""Fifty clients that talk, pipeline, err and vanish, against one server: does it lose an answer or keep anything?

    python benchmarks/soak.py --clients 50 --seconds 60

Prints a ledger (every request was answered, refused or ended with its connection) and what the server held before and
after. Each answer is checked to belong to its request. Exit code 1 if anything was lost, mixed up or left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from policyserve import ServerConfig
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import PolicySpec
from policyserve.dialects.vibe_rl import VibeRL
from policyserve.server.server import PolicyServer, Server

WIRE = VibeRL()
BAD = b"\xc1"
PATIENCE_S = 60.0


class Echo:
    """Answers each observation with itself, in batches."""

    spec = PolicySpec("echo", None, None, max_batch=16)

    def infer(self, batch: list[PolicyInput]) -> list[ActionChunk]:
        return [ActionChunk(one.observation, state=one.observation) for one in batch]

    def close(self) -> None: ...


class Ledger(Counter[str]):
    """sent = answered + refused + closed, if nothing was lost."""

    @property
    def lost(self) -> int:
        return self["sent"] - self["answered"] - self["refused"] - self["closed"]


async def live(url: str, ledger: Ledger, dice: random.Random, goes_on: Callable[[], bool]) -> None:
    """One client: session after session, each with its own kind of end."""
    while goes_on():
        try:
            peer = await connect(url, compression=None, ping_interval=None)
        except (OSError, EOFError):
            ledger["not connected"] += 1
            continue
        ledger["sessions"] += 1
        await _talk(peer, ledger, dice, goes_on)


async def _talk(peer: ClientConnection, ledger: Ledger, dice: random.Random, goes_on: Callable[[], bool]) -> None:
    for _ in range(dice.randrange(1, 20)):
        if not goes_on():
            break
        sent = [np.array([dice.random() for _ in range(dice.randrange(1, 8))]) for _ in range(dice.randrange(1, 6))]
        errs, vanishes = dice.random() < 0.03, dice.random() < 0.05
        for one in sent:
            ledger["sent"] += 1
            await peer.send(WIRE.write_request({"obs": one}))
        if vanishes:
            ledger["closed"] += len(sent)
            ledger["vanished"] += 1
            peer.transport.abort()
            await peer.wait_closed()
            return
        if errs:
            ledger["sent"] += 1
            await peer.send(BAD)
        if not await _collect(peer, ledger, sent):
            ledger["closed"] += errs
            return
        if errs:
            await _expect_refusal(peer, ledger)
            return
    await peer.close()


async def _collect(peer: ClientConnection, ledger: Ledger, sent: list[Any]) -> bool:
    """Receive the answers of `sent`, in order; False if the connection ended before."""
    for number, one in enumerate(sent):
        try:
            actions = WIRE.read_reply(await asyncio.wait_for(peer.recv(), PATIENCE_S)).actions
        except ConnectionClosed:
            ledger["closed"] += len(sent) - number
            return False
        except asyncio.TimeoutError:
            return False  # lost: the ledger will not add up
        ledger["answered"] += 1
        ledger["mixed up"] += not np.array_equal(actions, one)
    return True


async def _expect_refusal(peer: ClientConnection, ledger: Ledger) -> None:
    try:
        await asyncio.wait_for(peer.recv(), PATIENCE_S)
    except ConnectionClosed as closed:
        ledger["refused" if closed.rcvd is not None and closed.rcvd.code == 1008 else "closed"] += 1
    except asyncio.TimeoutError:
        pass


def held(server: Server) -> dict[str, int]:
    """What is there now: tasks of the loop, open sessions, kilobytes that Python holds besides the pool's buffers."""
    gc.collect()
    kilobytes = (tracemalloc.get_traced_memory()[0] - server.pool.kept_bytes) // 1024
    return {"tasks": len(asyncio.all_tasks()), "sessions": server.stats.sessions_open, "kB": kilobytes}


async def soak(clients: int, seed: int, goes_on: Callable[[], bool]) -> tuple[Ledger, dict[str, int], dict[str, int]]:
    """Run the clients while goes_on(); returns the ledger and what was held before and after."""
    ledger = Ledger()
    config = ServerConfig(max_sessions=4 * clients, max_pending=64)
    async with PolicyServer(Echo(), "127.0.0.1", 0, config=config) as server:
        await server.ready()
        url = f"ws://127.0.0.1:{server.address[1]}/vibe_rl"
        rounds = iter([True] * 200)
        await live(url, Ledger(), random.Random(seed), lambda: next(rounds, False))  # fills caches
        await _until_empty(server)
        before = held(server)
        await asyncio.gather(*(live(url, ledger, random.Random(seed + number), goes_on) for number in range(clients)))
        await _until_empty(server)
        return ledger, before, held(server)


async def _until_empty(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while server.stats.sessions_open and time.monotonic() < deadline:  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("policyserve").setLevel(logging.ERROR)  # a line per refusal is not news here
    tracemalloc.start()
    end = time.monotonic() + arguments.seconds
    ledger, before, after = asyncio.run(soak(arguments.clients, arguments.seed, lambda: time.monotonic() < end))
    for name in ("sessions", "vanished", "sent", "answered", "refused", "closed", "not connected"):
        print(f"{name:>14} {ledger[name]:>10}")
    print(f"{'lost':>14} {ledger.lost:>10}\n{'mixed up':>14} {ledger['mixed up']:>10}\n")
    print(f"{'':>14} {'before':>10} {'after':>10}")
    for name, count in before.items():
        print(f"{name:>14} {count:>10} {after[name]:>10}")
    is_fine = not ledger.lost and not ledger["mixed up"] and after["tasks"] <= before["tasks"] and not after["sessions"]
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
