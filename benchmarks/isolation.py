"""What a process of the policy's own adds to a request: round trips through both runners, taken in turns.

    python benchmarks/isolation.py [--rounds 2000]

No sockets and no dialect: an observation into the runner, an action chunk out, with a policy that costs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from policyserve import ActionChunk, ArraySpec, ImageSpec, PolicySpec
from policyserve.core.recipe import Recipe
from policyserve.engine.isolated.runner import ProcessRunner
from policyserve.engine.runner import Runner, Task, ThreadRunner

_HORIZON = 32
_ACTION = 7


class Idle:
    """Answers the same chunk always."""

    buckets: tuple[int, ...] = ()

    def __init__(self, images: int, height: int, width: int) -> None:
        pictures = {f"image_{number}": ImageSpec(height, width) for number in range(images)}
        self.spec = PolicySpec(
            "idle",
            {**pictures, "state": ArraySpec((8,))},
            ArraySpec((_ACTION,)),
            horizon=_HORIZON,
            max_batch=32,
        )
        self._actions = np.zeros((_HORIZON, _ACTION), np.float32)

    def infer(self, batch: Any) -> list[ActionChunk]:
        return [ActionChunk(self._actions) for _ in batch]

    def close(self) -> None: ...


PAYLOADS = {
    "state only, 32 B": {"images": 0, "height": 1, "width": 1},
    "2 x 224x224, 0.30 MB": {"images": 2, "height": 224, "width": 224},
    "2 x 480x640, 1.84 MB": {"images": 2, "height": 480, "width": 640},
    "3 x 480x640, 2.76 MB": {"images": 3, "height": 480, "width": 640},
}


async def round_trip_s(runner: Runner, observation: Any) -> float:
    """Seconds from handing in one observation to having its outcome."""
    answered = asyncio.get_running_loop().create_future()
    started_at = time.perf_counter()
    runner.infer([Task(1, observation)], answered.set_result)
    await answered
    return time.perf_counter() - started_at


async def compare(size: dict[str, int], rounds: int) -> tuple[float, float]:
    """Median microseconds of the thread and of the process."""
    recipe = Recipe(f"{Path(__file__).stem}:Idle", size)  # this file's folder is on the path of whoever runs it
    runners: list[Runner] = [ThreadRunner(recipe), ProcessRunner(recipe)]
    took: list[list[float]] = [[], []]
    specs = [await runner.start(lambda _: None) for runner in runners]
    observations = [specs[0].example() for _ in range(4)]  # as many as a server's buffers would be in turn
    for number in range(rounds):
        for runner, times in zip(runners, took, strict=True):
            times.append(await round_trip_s(runner, observations[number % 4]))
    for runner in runners:
        await runner.close(5)
    thread, process = (float(np.median(times)) * 1e6 for times in took)
    return thread, process


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    print(f"{'observation':24} {'thread µs':>10} {'process µs':>11} {'added µs':>9}")
    for name, size in PAYLOADS.items():
        thread, process = asyncio.run(compare(size, rounds))
        print(f"{name:24} {thread:10.0f} {process:11.0f} {process - thread:9.0f}")


if __name__ == "__main__":
    main()
