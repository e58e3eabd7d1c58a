"""How often values of each size came: counts between fixed bounds, cheap to add to and exact to add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, inf

import numpy as np

from policyserve.core.arrays import Array

# Four to a doubling: 0.01 ms to some three minutes, and 1 to 4096.
TIMES_MS = tuple(0.01 * 2 ** (step / 4) for step in range(97))
SIZES = tuple(float(size) for size in sorted({round(2 ** (step / 4)) for step in range(49)}))


@dataclass(frozen=True)
class Counts:
    """What a histogram held at one moment. counts: of values up to each bound, and one more for those beyond the last.

    sums: of those values, in the same places.
    """

    bounds: Sequence[float]
    counts: Array
    sums: Array

    @property
    def count(self) -> int:
        """All values."""
        return int(self.counts.sum())

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self.sums.sum())

    @property
    def mean(self) -> float:
        """0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def since(self, before: Counts) -> Counts:
        """What came between that moment and this one."""
        return Counts(self.bounds, self.counts - before.counts, self.sums - before.sums)

    def percentile(self, percent: float) -> float:
        """About the value that so many percent of them reach at most; 0 of nothing.

        Exact where the value is alone between its bounds. Several are taken to lie evenly around their mean, which is
        exact: a tenth off at most where they are all alike, and never outside of their bounds.
        """
        if not self.count:
            return 0.0
        below = np.cumsum(self.counts)
        wanted = max(ceil(percent / 100 * self.count), 1)
        place = int(np.searchsorted(below, wanted))
        inside = int(self.counts[place])
        lower, upper = [0.0, *self.bounds][place], [*self.bounds, inf][place]
        mean = min(max(float(self.sums[place]) / inside, lower), upper)  # differences of sums are off by a bit
        share = (wanted - int(below[place] - inside) - 0.5) / inside
        return mean + (2 * share - 1) * min(mean - lower, upper - mean)


@dataclass(eq=False)
class Histogram:
    """Counts of values between fixed bounds, which ascend. Belongs to one thread.

    counts: of values up to each bound, and one more for those beyond the last. sums: of those values.
    """

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    sums: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)
        self.sums = [0.0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Values until now."""
        return sum(self.counts)

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(self.sums)

    def add(self, value: float) -> None:
        """Count a value."""
        place = bisect_left(self.bounds, value)
        self.counts[place] += 1
        self.sums[place] += value

    def snapshot(self) -> Counts:
        """What it holds now."""
        return Counts(self.bounds, np.array(self.counts), np.array(self.sums))
