"""Counts what a piece of code allocates, at its peak, whatever else the process holds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Counted:
    """peak, left: bytes beyond those at the beginning, at the most and at the end; known behind the block."""

    peak: int = 0
    left: int = 0


@contextmanager
def counted_memory() -> Iterator[Counted]:
    """Count the allocations of the block, of Python's and NumPy's both."""
    counted = Counted()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    try:
        yield counted
    finally:
        left, peak = tracemalloc.get_traced_memory()
        counted.left, counted.peak = left - before, peak - before
        tracemalloc.stop()
