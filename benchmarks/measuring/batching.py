"""The marks of many clients: batches, robots that pause, one that pipelines, CartPole against vibe_rl's stand-in."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from policyserve import AsyncClient
from policyserve.bench.fleet import Single
from policyserve.bench.load import Load
from policyserve.bench.measures import quantiles
from policyserve.bench.raw import RawPeer
from policyserve.bench.raw_fleet import RawFleet
from policyserve.bench.tally import Tally
from policyserve.core.errors import ConnectionLost, RemoteError

from .clients import observation_for
from .harness import Effort, Row, all_started, is_at_most, our_server, stand_in, started
from .turns import Asker, in_turns, rate_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BATCH = 32
_SHARES = {
    "cartpole": {1: 0.88, 8: 0.85, 32: 0.80, 64: 0.88},
    "libero": {1: 0.88, 8: 0.70, 32: 0.45, 64: 0.50},
}
_ROBOTS = 8
_PIPELINED = 200
_JAX_STARTS = 3  # each takes seconds


def batch_rows(effort: Effort) -> list[Row]:
    """A policy that takes 5 ms for any batch of up to 32: answers per second as a share of what it could give."""
    rows: list[Row] = []
    for payload, shares in _SHARES.items():
        short = {"cartpole": "P1", "libero": "P2"}[payload]
        with started(our_server(f"measuring.policies:{payload}_5ms")) as serving:
            for clients, least in shares.items():
                rate = _rate(serving.url, payload, clients, effort)
                share = rate / (min(clients, _MAX_BATCH) / 0.005)
                what = f"5 ms policy that batches, share of the ceiling, {clients} clients, {short}"
                rows.append(Row(what, f"≥ {least:.0%}", f"{share:.0%} ({rate:.0f} per second)", share >= least))
    return rows


def slow_rows(effort: Effort) -> list[Row]:
    """A policy that takes 20 ms for any batch of up to 32."""
    with started(our_server("measuring.policies:cartpole_20ms")) as serving:
        rate = _rate(serving.url, "cartpole", 32, effort)
    return [Row("20 ms policy that batches, 32 clients", "≥ 1300 /s", f"{rate:.0f} answers per second", rate >= 1300)]


def cartpole_rows(effort: Effort) -> list[Row]:
    """CartPole PPO on NumPy against the jitted JAX policy in a plain handler; raw clients that offer to compress.

    Two forms of the policy: one compiled function, and a module of Equinox, as its checkpoints hold.
    """
    servers = {
        "ours": our_server("cartpole_ppo"),
        "jax.jit": stand_in("vibe_rl"),
        "equinox": stand_in("vibe_rl", "--policy", "equinox"),
    }
    marks = {1: 4.0, 32: 8.0}
    askers = {
        f"{server} {clients}": Asker(server, "cartpole", dialect="vibe_rl", clients=clients, offers_deflate=True)
        for clients in marks
        for server in servers
    }
    starts = in_turns(servers, askers, replace(effort, starts=min(effort.starts, _JAX_STARTS)))
    rows: list[Row] = []
    for clients, least in marks.items():
        for other in ("jax.jit", "equinox"):
            found = rate_ratio(starts, f"ours {clients}", f"{other} {clients}")
            measured = f"{found.median:.2f}x ({found.low:.2f} … {found.high:.2f})"
            asked = f"CartPole PPO, {clients} client{'s' if clients > 1 else ''}"
            what = f"{asked}, requests per second / vibe_rl's, {other}"
            rows.append(Row(what, f"≥ {least:g}x", measured, found.median >= least))
    return rows


def robot_rows(effort: Effort) -> list[Row]:
    """8 robots that pause 80 to 120 ms after each answer; the 99th percentile against servers that never wait."""
    variants = {
        "batching": ("measuring.policies:cartpole_5ms", ()),
        "greedy": ("measuring.policies:cartpole_5ms", ("--max-wait-ms", "0")),
        "unbatched": ("measuring.policies:cartpole_5ms_unbatched", ()),
    }
    with all_started({name: our_server(policy, *flags) for name, (policy, flags) in variants.items()}) as up:
        trips = asyncio.run(_pausing([up[name].url for name in variants], max(effort.alone_s * 5, 3.0)))
    p99_ms = {name: quantiles(found).p99 * 1e3 for name, found in zip(variants, trips, strict=True)}
    rows: list[Row] = []
    for other in ("greedy", "unbatched"):
        ratio = p99_ms["batching"] / p99_ms[other]
        measured = f"{ratio:.2f}x ({p99_ms['batching']:.1f} / {p99_ms[other]:.1f} ms)"
        what = {"greedy": "that never waits", "unbatched": "of one at a time"}[other]
        rows.append(Row(f"8 robots pausing 100 ms, p99 / a server {what}", "≤ 1.2x", measured, ratio <= 1.2))
    return rows


def pipeline_rows(effort: Effort) -> list[Row]:
    """A session's round trip while another keeps 200 requests unanswered, 5 ms policy, one at a time."""
    tally = Tally()
    with started(our_server("measuring.policies:one_5ms")) as serving, _pipelining(serving.url):
        fleet = Single(Load(serving.url, "openpi", observation_for("cartpole")))
        fleet.drive(tally, effort.alone_s)
        fleet.close()
    trips_ms = quantiles([trip * 1e3 for trip in tally.trips_s])
    what = "another session's round trip while one pipelines 200 requests"
    return [is_at_most(what, trips_ms.p50, 15.0, "ms", f"p99 {trips_ms.p99:.1f} ms")]


def _rate(url: str, payload: str, clients: int, effort: Effort) -> float:
    """Answers per second of raw clients in a closed loop."""
    fleet = RawFleet(Load(url, "openpi", observation_for(payload), clients))
    try:
        fleet.drive(Tally(), effort.alone_s / 6)
        tally = Tally()
        fleet.drive(tally, effort.alone_s)
    finally:
        fleet.close()
    if tally.errors:
        raise SystemExit(f"{clients} clients: {dict(tally.examples)}")
    return tally.per_second


async def _pausing(urls: Sequence[str], seconds: float) -> list[list[float]]:
    """The round trips of robots that ask every server at the same time, so that all see the same minute."""
    trips: list[list[float]] = [[] for _ in urls]
    end = time.perf_counter() + seconds

    async def live(url: str, found: list[float], seed: int) -> None:
        pause = random.Random(seed)
        async with AsyncClient(url) as client:
            while time.perf_counter() < end:
                await asyncio.sleep(pause.uniform(0.08, 0.12))
                start = time.perf_counter()
                await client.infer(observation_for_robots)
                found.append(time.perf_counter() - start)

    observation_for_robots = observation_for("cartpole")
    await asyncio.gather(
        *(live(url, found, seed) for url, found in zip(urls, trips, strict=True) for seed in range(_ROBOTS))
    )
    return trips


@contextmanager
def _pipelining(url: str) -> Iterator[None]:
    """A session that keeps 200 requests unanswered, in a thread, until the block ends."""
    peer = RawPeer(url, "openpi", 30.0)
    frame = peer.frame(observation_for("cartpole"), "openpi")
    is_over = threading.Event()
    is_full = threading.Event()

    def run() -> None:
        with suppress(ConnectionLost):
            peer.send(frame * _PIPELINED)
            is_full.set()
            while not is_over.is_set():
                with suppress(RemoteError):  # a refusal is an answer
                    peer.receive()
                peer.send(frame)

    thread = threading.Thread(target=run, name="pipelining")
    thread.start()
    is_full.wait(10)
    try:
        yield
    finally:
        is_over.set()
        thread.join(30)
        peer.close()
