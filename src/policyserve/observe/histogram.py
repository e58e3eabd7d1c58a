"""How often values of each size came: counts between fixed bounds, cheap to add to and exact to add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum

import numpy as np

from policyserve.core.arrays import Array

# Four to a doubling, so that a percentile is off by a tenth at most: 0.01 ms to some three minutes, and 1 to 4096.
TIMES_MS = tuple(0.01 * 2 ** (step / 4) for step in range(97))
SIZES = tuple(float(size) for size in sorted({round(2 ** (step / 4)) for step in range(49)}))

_KEPT = 1024  # values until they are counted: all at once takes a fourth of the time


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

    recent: values that are not counted yet. Where every nanosecond counts, append to it and call fold() at times.
    """

    bounds: Sequence[float]
    recent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._bounds = np.array(self.bounds)
        self._counts = np.zeros(len(self.bounds) + 1, np.int64)
        self._count, self._total = 0, 0.0

    @property
    def count(self) -> int:
        """Values until now."""
        return self._count + len(self.recent)

    @property
    def total(self) -> float:
        """Their sum."""
        return self._total + fsum(self.recent)

    def add(self, value: float) -> None:
        """Count a value."""
        self.recent.append(value)
        if len(self.recent) >= _KEPT:
            self.fold()

    def fold(self) -> None:
        """Count what is in `recent`."""
        places = np.searchsorted(self._bounds, np.array(self.recent))
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._count, self._total = self.count, self.total
        self.recent.clear()

    def counts(self) -> Counts:
        """What it holds now."""
        self.fold()
        return Counts(self.bounds, self._counts.copy(), self._total)
