"""How long work takes on a device, what the device does at best, and how much of its memory is taken."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Rates:
    """What this device does at best: bytes and FLOPs per second."""

    bandwidth: float
    matmul: float


def seconds_of(function: Callable[[], Any], rounds: int) -> float:
    """The median of some runs after a first one, waiting for the device before and after each."""
    times = []
    for _ in range(rounds + 1):
        wait_for_device()
        started = time.perf_counter()
        function()
        wait_for_device()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Copy a large tensor, multiply large matrices: the best of some runs."""
    is_gpu = device.type == "cuda"
    block = torch.ones((1 << 30 if is_gpu else 1 << 28) // 4, device=device)
    target = torch.empty_like(block)
    size = 8192 if is_gpu else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    copy = min(seconds_of(lambda: target.copy_(block), 1) for _ in range(10))
    product = min(seconds_of(lambda: left @ right, 1) for _ in range(10))
    return Rates(2 * block.nbytes / copy, 2 * size**3 / product)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def gpu_memory(device: torch.device) -> dict[str, int]:
    """Bytes that torch has reserved at most, and that all programs together hold now; empty on a CPU."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
        "used_bytes": total - free,
        "total_bytes": total,
    }
