"""What stacking a batch of camera observations costs, against plain np.stack, and what stacking ahead hides of it.

    python benchmarks/stacking.py [--rows 32] [--calls 200]

Each line is a process of its own, where the C library keeps what is freed, as in a server. The
second table has a policy that takes 5 ms and leaves the CPU alone, as one on a GPU does, in a thread and in a process
of its own, while the next batch stands ready: the batches that it answers, as a share of what 5 ms each would give.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from policyserve.core.effects import Answered
from policyserve.core.memory import keep_freed
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.recipe import Recipe
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.engine.isolated.runner import ProcessRunner
from policyserve.engine.runner import Runner, Task, ThreadRunner
from policyserve.policies.stacked import StackedPolicy

PAYLOADS = {"libero": (2, 224, 224), "aloha": (3, 480, 640)}  # cameras, height, width
WAYS = ("np.stack", "StackedPolicy", "StackedPolicy, inputs kept")
PLACES = ("thread", "process")
STACKED = ("in its turn", "ahead")
POLICY_S = 0.005


def observation(payload: str, seed: int) -> dict[str, Any]:
    """Images as they come from the socket: views of a message's own buffer."""
    count, height, width = PAYLOADS[payload]
    size = height * width * 3
    message = bytearray(np.random.default_rng(seed).bytes(count * size))
    images = np.frombuffer(message, np.uint8).reshape(count, height, width, 3)
    return {"state": np.zeros(8, np.float32), **{f"image_{index}": image for index, image in enumerate(images)}}


def policy(payload: str, max_batch: int, keeps: bool = False, seconds: float = 0.0) -> StackedPolicy:
    """Answers after `seconds`; keeps: holds every input until the next."""
    count, height, width = PAYLOADS[payload]
    images = {f"image_{index}": ImageSpec(height, width) for index in range(count)}
    spec = PolicySpec(payload, {"state": ArraySpec((8,)), **images}, ArraySpec((7,)), max_batch=max_batch)
    kept: list[Any] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        kept[:] = [rows] if keeps else []
        if seconds:
            time.sleep(seconds)
        return np.zeros((len(rows["state"]), 7), np.float32)

    return StackedPolicy(forward, spec)


def measure(payload: str, way: str, rows: int, calls: int) -> str:
    observations = [observation(payload, seed) for seed in range(rows)]
    inputs = [PolicyInput(one) for one in observations]
    stacked = policy(payload, rows, keeps="kept" in way)

    def plain() -> Any:
        return {key: np.stack([one[key] for one in observations]) for key in observations[0]}

    call: Callable[[], Any] = plain if way == "np.stack" else lambda: stacked.infer(inputs)
    for _ in range(10):
        call()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    took_ms: list[float] = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        took_ms.append((time.perf_counter() - began) * 1e3)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return f"| {payload} | {way} | {sorted(took_ms)[calls // 2]:.2f} | {faults / calls:.1f} |"


class InItsTurn:
    """A policy whose batches are not prepared."""

    buckets: Sequence[int] = ()

    def __init__(self, stacked: StackedPolicy) -> None:
        self.spec = stacked.spec
        self._stacked = stacked

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return self._stacked.infer(batch)

    def close(self) -> None:
        """Nothing to release."""


def served(payload: str, max_batch: int, stacked: str) -> StackedPolicy | InItsTurn:
    """What a runner loads."""
    made = policy(payload, max_batch, seconds=POLICY_S)
    return made if stacked == "ahead" else InItsTurn(made)


def measure_pipeline(payload: str, place: str, stacked: str, rows: int, calls: int) -> str:
    recipe = Recipe("stacking:served", {"payload": payload, "max_batch": rows, "stacked": stacked})
    runner: Runner = ThreadRunner(recipe) if place == "thread" else ProcessRunner(recipe)
    took_s = asyncio.run(drive(runner, [Task(seed, observation(payload, seed)) for seed in range(rows)], calls))
    return f"| {payload} | {place} | {stacked} | {calls * POLICY_S / took_s:.0%} |"


async def drive(runner: Runner, batch: Sequence[Task], calls: int) -> float:
    """Seconds that `calls` batches take; one stands behind the running one always."""
    await runner.start(lambda _stage: None)
    left, began, ended = calls + 12, 0.0, asyncio.Event()

    def go_on(outcomes: Sequence[Any]) -> None:
        nonlocal left, began
        assert all(isinstance(outcome, Answered) for outcome in outcomes), outcomes
        left -= 1
        if left == calls:
            began = time.perf_counter()
        if left > 1:
            runner.infer(batch, go_on)
        elif left == 0:
            ended.set()

    runner.infer(batch, go_on)
    runner.infer(batch, go_on)
    await ended.wait()
    took_s = time.perf_counter() - began
    await runner.close(5)
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the stacking of images.")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        keep_freed()  # as a server does
        payload, *how = flags.one
        measured = measure(payload, how[0], flags.rows, flags.calls) if len(how) == 1 else None
        print(measured or measure_pipeline(payload, how[0], how[1], flags.rows, flags.calls))
        return

    def line(*what: str) -> None:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", *what], check=True)

    print(f"{flags.rows} observations\n| payload | way | p50 ms | page faults a call |\n|---|---|---|---|", flush=True)
    for payload in PAYLOADS:
        for way in WAYS:
            line(payload, way)
    print("\n| payload | runs in a | stacked | share of the ceiling |\n|---|---|---|---|", flush=True)
    for payload in PAYLOADS:
        for place in PLACES:
            for stacked in STACKED:
                line(payload, place, stacked)


if __name__ == "__main__":
    main()
