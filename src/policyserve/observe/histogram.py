"""How often values of each size came: counts between fixed bounds, cheap to add to and exact to add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from policyserve.core.arrays import Array

# Four to a doubling, so that a percentile is off by a tenth at most: 0.01 ms to some three minutes, and 1 to 4096.
TIMES_MS = tuple(0.01 * 2 ** (step / 4) for step in range(97))
SIZES = tuple(float(size) for size in sorted({round(2 ** (step / 4)) for step in range(49)}))


@dataclass(frozen=True)
class Counts:
    """What a histogram held at one moment. counts: of values up to each bound, and one more for those beyond the last.

    count, total: of all values, and their sum.
    """

    bounds: Sequence[float]
    counts: Array
    total: float

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def since(self, before: Counts) -> Counts:
        """What came between that moment and this one."""
        return Counts(self.bounds, self.counts - before.counts, self.total - before.total)

    def percentile(self, percent: float) -> float:
        """About where so many percent of the values lie below; 0 of nothing, the last bound for what is beyond it."""
        if not self.count:
            return 0.0
        wanted = percent / 100 * self.count
        below = np.cumsum(self.counts)
        place = int(np.searchsorted(below, wanted))
        if place >= len(self.bounds):
            return self.bounds[-1]
        lower = self.bounds[place - 1] if place else 0.0
        share = (wanted - (below[place] - self.counts[place])) / self.counts[place]
        return float(lower + (self.bounds[place] - lower) * share)


@dataclass(eq=False)
class Histogram:
    """Counts of values between fixed bounds, which ascend. Belongs to one thread.

    counts: of values up to each bound, and one more for those beyond the last. total: of all values.
    """

    bounds: Sequence[float]
    total: float = 0.0
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Values until now."""
        return sum(self.counts)

    def add(self, value: float) -> None:
        """Count a value."""
        self.total += value
        self.counts[bisect_left(self.bounds, value)] += 1

    def snapshot(self) -> Counts:
        """What it holds now."""
        return Counts(self.bounds, np.array(self.counts), self.total)
