"""What stacking a batch of camera observations costs, and how many page faults it takes, against plain np.stack.

    python benchmarks/stacking.py [--rows 32] [--calls 200]

Each line is a process of its own: what the allocator has seen before decides what it gives back to the kernel.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from policyserve.core.policy import PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.policies.stacked import StackedPolicy

PAYLOADS = {"libero": (2, 224, 224), "aloha": (3, 480, 640)}  # cameras, height, width
WAYS = ("np.stack", "StackedPolicy", "StackedPolicy, inputs kept")


def observation(payload: str, seed: int) -> dict[str, Any]:
    """Images as they come from the socket: views of a message's own buffer."""
    count, height, width = PAYLOADS[payload]
    size = height * width * 3
    message = bytearray(np.random.default_rng(seed).bytes(count * size))
    images = np.frombuffer(message, np.uint8).reshape(count, height, width, 3)
    return {"state": np.zeros(8, np.float32), **{f"image_{index}": image for index, image in enumerate(images)}}


def policy(payload: str, max_batch: int, keeps: bool) -> StackedPolicy:
    """Answers at once; keeps: holds every input until the next."""
    count, height, width = PAYLOADS[payload]
    images = {f"image_{index}": ImageSpec(height, width) for index in range(count)}
    spec = PolicySpec(payload, {"state": ArraySpec((8,)), **images}, ArraySpec((7,)), max_batch=max_batch)
    kept: list[Any] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        kept[:] = [rows] if keeps else []
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the stacking of images.")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--one", nargs=2, metavar=("PAYLOAD", "WAY"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        payload, way = flags.one
        print(measure(payload, way, flags.rows, flags.calls))
        return
    print(f"{flags.rows} observations\n| payload | way | p50 ms | page faults a call |\n|---|---|---|---|", flush=True)
    for payload in PAYLOADS:
        for way in WAYS:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", payload, way], check=True)


if __name__ == "__main__":
    main()
