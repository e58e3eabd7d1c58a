#!/usr/bin/env python3
"""What a policy on a cluster costs, as ratios within one run: an edge and a replica beside a policy's own process.

    python benchmarks/cluster.py               # all marks, some minutes; needs the extra `ray`
    python benchmarks/cluster.py --seconds 2   # coarser
    python benchmarks/cluster.py --replicas 1 2 4   # answers a second and processor time, for benchmarks/cluster_sim.py

Both ways from an edge to its replica are measured: tcp, connections of our own, and handle, through Ray Serve.

Both servers are started as commands, on this machine, and asked in turns by the same clients, openpi's. Milliseconds
tell of this machine and of what else it does; the ratios are what has marks (docs/cluster.md). Ends with 1 where a
mark is missed.

P1 is four float32, P2 two cameras of 224x224 (301 kB), P3 three of 480x640 (2.76 MB); the answer is (32, 7) float32.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from policyserve.compat.openpi.client import WebsocketClientPolicy
from policyserve.core.effects import Outcome
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.answering import Task

ROOT = Path(__file__).resolve().parents[1]
MARKS = {  # times a policy's own process, end to end
    "tcp": {"P1": 1.5, "P2": 1.5, "P3": 1.5},
    "handle": {"P1": 12.0, "P2": 10.0, "P3": 2.6},
}
GROUP_MARK, LOAD_MARK = 10.0, 0.9
_BLOCK = 25  # requests of one server before the other's turn
_OBSERVATIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "P1": lambda: {"state": np.zeros(4, np.float32)},
    "P2": lambda: {"a": _picture(224, 224), "b": _picture(224, 224)},
    "P3": lambda: {name: _picture(480, 640) for name in "abc"},
}


class Still:
    """Answers the same at once, or after takes_s, in batches of up to 16.

    inline: says that a call costs less than a hop to a thread, as all policies do that were found to be so quick.
    """

    def __init__(self, takes_s: float = 0.0, *, inline: bool = False) -> None:
        self.spec = PolicySpec("still", None, ArraySpec((32, 7)), max_batch=16, inline=inline)
        self._takes_s = takes_s

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        if self._takes_s:
            time.sleep(self._takes_s)
        return [ActionChunk(np.zeros((32, 7), np.float32)) for _ in batch]

    def close(self) -> None:
        """Nothing to release."""


def still() -> Still:
    """What costs nothing, so that all that is measured is the way there and back."""
    return Still(inline=True)


def threaded() -> Still:
    """The same in a thread of its replica, as policies that take longer are."""
    return Still()


def slow() -> Still:
    """A policy of 20 ms."""
    return Still(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description="What a policy on a cluster costs, as ratios within one run.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--replicas", type=int, nargs="+", default=[], help="only answers a second at so many of them")
    args = parser.parse_args()
    if find_spec("ray") is None:
        print("left out: it needs the extra ray, pip install 'policyserve[ray]'")
        return 0
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: trust the ratios", flush=True)
    if args.replicas:
        for count in args.replicas:
            at_replicas(count, args.seconds)
        return 0
    missed = [told for carrier in MARKS for told in (*round_trips(carrier, args.seconds), *load(carrier, args.seconds))]
    missed += grouping(args.seconds)
    in_a_thread(args.seconds)
    print("\n".join(missed) or "all marks are met")
    return 1 if missed else 0


def round_trips(carrier: str, seconds: float) -> Iterator[str]:
    """One client, one request at a time, both servers in turns."""
    for name, base, ours in _beside("still", carrier, list(_OBSERVATIONS), seconds):
        mark = MARKS[carrier][name]
        yield from _judge(_told(name, carrier, base, ours), ours / base <= mark, f"at most {mark:g}")


def in_a_thread(seconds: float) -> None:
    """What a replica's thread adds, for a policy that does not say that it is quick."""
    for name, base, ours in _beside("threaded", "tcp", ["P1"], seconds):
        print(f"in a thread, {_told(name, 'tcp', base, ours)}", flush=True)


def _beside(policy: str, carrier: str, names: Sequence[str], seconds: float) -> Iterator[tuple[str, float, float]]:
    """For each observation the median round trips, in seconds, of a policy's own process, and of a replica."""
    with server(policy) as own, server(policy, *_RAY, "--carrier", carrier) as edge:
        for name in names:
            observation, times = _OBSERVATIONS[name](), {own: [], edge: []}
            clients = {port: WebsocketClientPolicy("127.0.0.1", port) for port in (own, edge)}
            until = time.monotonic() + 2 * seconds
            while time.monotonic() < until:
                for port, client in clients.items():
                    times[port] += [_time(client, observation) for _ in range(_BLOCK)]
            for client in clients.values():
                client.close()
            base, ours = (statistics.median(times[port][_BLOCK:]) for port in (own, edge))
            yield name, base, ours


def _told(name: str, carrier: str, base: float, ours: float) -> str:
    return f"{name}: process {base * 1e3:.2f} ms, {carrier} {ours * 1e3:.2f} ms, {ours / base:.2f} times"


def load(carrier: str, seconds: float) -> Iterator[str]:
    """Thirty-two clients of a policy of 20 ms that takes 16 at a time."""
    rates: dict[str, list[float]] = {"process": [], "edge": []}
    with server("slow") as own, server("slow", *_RAY, "--carrier", carrier) as edge:
        for _ in range(2):
            rates["process"].append(_rate(own, seconds))
            rates["edge"].append(_rate(edge, seconds))
    base, ours = max(rates["process"]), max(rates["edge"])
    told = f"20 ms, 32 clients: process {base:.0f}/s, {carrier} {ours:.0f}/s, {ours / base:.2f} times"
    yield from _judge(told, ours / base >= LOAD_MARK, f"at least {LOAD_MARK:g}")


def grouping(seconds: float) -> Iterator[str]:
    """Sixty-four requests outstanding, one call each or in groups of 32, where a call costs much."""
    one, many = asyncio.run(_grouped(seconds))
    told = f"64 sessions, P1, handle: {one:.0f}/s in calls of one, {many:.0f}/s in groups of 32, {many / one:.1f} times"
    yield from _judge(told, many / one >= GROUP_MARK, f"at least {GROUP_MARK:g}")


def at_replicas(count: int, seconds: float) -> None:
    """Thirty-two clients of a policy of 20 ms on so many replicas, and whose processor time each answer takes."""
    from measuring import processor_time

    bounds = ("--min-replicas", str(count), "--max-replicas", str(count))
    with server("slow", *_RAY, *bounds) as edge:
        _rate(edge, seconds / 2)  # warm
        calm = processor_time.by_kind()
        time.sleep(seconds)
        before, others, groups = processor_time.by_kind(), processor_time.busy_ms(), _groups(edge)
        began = time.monotonic()
        rate = _rate(edge, seconds)
        took_ms = 1000 * (time.monotonic() - began)
        used = processor_time.by_kind() - before
        calls, requests = (after - first for after, first in zip(_groups(edge), groups, strict=True))
        foreign = max(processor_time.busy_ms() - others - used.total(), 0) / took_ms
    told = ", ".join(f"{kind} {used[kind] / (rate * seconds):.2f}" for kind in sorted(used))
    idle = (before - calm)["controller"] / (10 * seconds)
    print(f"{count} replicas: {rate:.0f}/s in groups of {requests / calls:.1f}; ms of processor an answer: {told}")
    print(f"   the controller {100 * used['controller'] / took_ms:.1f} % of a core, without requests {idle:.1f} %;")
    print(f"   other programs took {foreign:.2f} of {os.cpu_count()} cores", flush=True)


_RAY = ("--engine", "ray", "--ray-address", "local", "--num-gpus", "0", "--num-cpus", "0.1")


@contextmanager
def server(policy: str, *flags: str) -> Iterator[int]:
    """A server of one of this module's policies in a process of its own; its port."""
    where = [] if flags else ["--isolate", "process"]
    command = [sys.executable, "-m", "policyserve.cli", "serve", f"benchmarks.cluster:{policy}", *where, *flags]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0", "--log-level", "error"],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=log,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            told = ""
            for line in process.stdout:
                told += line
                if line.startswith("ready"):
                    break
            found = re.search(r"ws://\S+:(\d+)", told)
            log.seek(0)
            assert found, f"{policy} {flags} did not start: {told}{log.read()[-2000:]}"
            yield int(found[1])
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


async def _grouped(seconds: float) -> tuple[float, float]:
    """Requests a second in calls of one and of 32, on a cluster of this process."""
    from policyserve.core.recipe import Recipe
    from policyserve.ray import cluster
    from policyserve.ray.config import ClusterConfig, ReplicaSettings
    from policyserve.ray.handle import HandleCarrier
    from policyserve.ray.lane import Edge, Lane

    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    config = ClusterConfig(ray_address="local", num_gpus=0, num_cpus=0.1)
    cluster.connect(config)
    cluster.deploy("still", Recipe("benchmarks.cluster:still"), config, ReplicaSettings())
    cluster.wait_until_running("still", lambda _: None)
    carrier = HandleCarrier(cluster.handle_of("still"))
    described = await carrier.describe(30.0)
    observation = _OBSERVATIONS["P1"]()

    async def rate(size: int) -> float:
        edge = Edge("bench ", described.digest, call_timeout_s=60.0)
        until, done = time.monotonic() + seconds, 0

        async def ask(lane: Lane, first: int) -> None:
            nonlocal done
            while time.monotonic() < until:
                told: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
                lane.infer([Task(first + place, observation) for place in range(size)], told.set_result)
                outcomes = await told
                done += len(outcomes)

        began = time.monotonic()
        await asyncio.gather(*(ask(Lane(carrier, edge), size * lane) for lane in range(64 // size)))
        return done / (time.monotonic() - began)

    await rate(1)
    rounds = [(await rate(1), await rate(32)) for _ in range(2)]
    cluster.shut_down()
    return max(one for one, _ in rounds), max(many for _, many in rounds)


def _rate(port: int, seconds: float) -> float:
    """Answers a second to thirty-two clients."""
    counts, until = [0] * 32, time.monotonic() + seconds

    def ask(place: int) -> None:
        client, observation = WebsocketClientPolicy("127.0.0.1", port), _OBSERVATIONS["P1"]()
        while time.monotonic() < until:
            client.infer(observation)
            counts[place] += 1
        client.close()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _groups(port: int) -> tuple[int, int]:
    """Groups that an edge has sent, and the requests in them, as its metrics tell."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        text = page.read().decode()
    calls, requests = (
        re.search(rf"^policyserve_cluster_{name}_total\S* (\d+)", text, re.MULTILINE)
        for name in ("calls", "grouped_requests")
    )
    assert calls, text
    assert requests, text
    return int(calls[1]), int(requests[1])


def _judge(told: str, is_met: bool, mark: str) -> Iterator[str]:
    print(f"{told} (mark: {mark})", flush=True)
    if not is_met:
        yield f"missed: {told}, expected {mark}"


def _time(client: WebsocketClientPolicy, observation: dict[str, Any]) -> float:
    began = time.perf_counter()
    client.infer(observation)
    return time.perf_counter() - began


def _picture(height: int, width: int) -> Any:
    return np.zeros((height, width, 3), np.uint8)


if __name__ == "__main__":
    sys.exit(main())
