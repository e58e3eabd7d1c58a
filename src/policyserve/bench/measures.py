"""The arithmetic of measuring: quantiles, ratios and their spread, when requests are due, the search of a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Each is a value that was seen: at least that share of all values is not above it."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the quartiles around it, of `count` values."""

    median: float
    low: float
    high: float
    count: int


def quantiles(values: Sequence[float]) -> Quantiles:
    """The quantiles of at least one value."""
    p50, p90, p99 = np.quantile(np.asarray(values, np.float64), (0.5, 0.9, 0.99), method="inverted_cdf")
    return Quantiles(float(p50), float(p90), float(p99), float(max(values)))


def spread(values: Sequence[float]) -> Spread:
    """The median and quartiles of at least one value."""
    low, median, high = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75))
    return Spread(float(median), float(low), float(high), len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of ours / theirs, pair by pair: what was measured side by side, so that the hour's noise falls out.

    All of `theirs` are above 0.
    """
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def in_turns(pairs: int) -> list[tuple[int, int]]:
    """Who goes first and second in each of `pairs` pairs of slices, 0 or 1: in turns, so that no order is favoured."""
    return [(0, 1) if number % 2 == 0 else (1, 0) for number in range(pairs)]


class Pace:
    """When one client's requests are due, between `start` and `end` (seconds on any clock).

    period_s None, a closed loop: a request is due when the one before is answered. Else an open loop: requests are due
    at fixed times, first_after_s later than `start` and then every period_s, however late the answers come.
    """

    def __init__(self, start: float, end: float, period_s: float | None = None, first_after_s: float = 0.0) -> None:
        self._end = end
        self._period_s = period_s
        self._first = start + first_after_s
        self._number = 0

    def next_due(self, now: float) -> float | None:
        """When the next request is due, maybe before `now`; None if no more is to be sent."""
        if now >= self._end:
            return None
        due = now if self._period_s is None else self._first + self._number * self._period_s
        if due >= self._end:
            return None
        self._number += 1
        return due

    @property
    def unsent(self) -> int:
        """How many requests were due before the end and never asked for, once next_due() says None."""
        if self._period_s is None:
            return 0
        count = 0
        while self._first + (self._number + count) * self._period_s < self._end:
            count += 1
        return count


class Search:
    """Finds the largest number that holds, up to `most`: doubling, then bisection; it assumes that fewer hold, too."""

    def __init__(self, start: int, most: int) -> None:
        self.best = 0  # the largest that held
        self._too_many = most + 1  # the smallest that did not
        self._has_failed = False
        self._next = min(start, most)

    @property
    def next(self) -> int | None:
        """What to try next; None once it is known."""
        return self._next if self.best + 1 < self._too_many else None

    def tell(self, holds: bool) -> None:
        """Say whether `next` held."""
        if holds:
            self.best = self._next
        else:
            self._too_many, self._has_failed = self._next, True
        doubled = min(self.best * 2, self._too_many - 1)
        self._next = (self.best + self._too_many) // 2 if self._has_failed else doubled
