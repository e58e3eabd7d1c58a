"""When a row's time is over, and a clock that only goes forward. Pure."""

from __future__ import annotations

import math

_SMOOTHING = 0.5  # of the interval between calls


class Cadence:
    """Says at which calls the next row begins, where calls come as often as rows or more often.

    A call takes the next row if it is nearer to the row's time than the call after it would be. Calls at the rows' own
    rate may be early or late by half a row's time; a loop that is too quick gets a row twice now and then, one that is
    too slow moves slower: rows are never left out.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._interval_s = period_s
        self._called_at: float | None = None
        self._due = -math.inf
        self._began = -math.inf

    def is_time(self, now: float) -> bool:
        """Whether this call is to take the next row."""
        if self._called_at is not None:
            interval = min(now - self._called_at, self._period_s)
            self._interval_s += _SMOOTHING * (interval - self._interval_s)
        self._called_at = now
        return now >= self._due - self._interval_s / 2

    def begin(self, now: float) -> None:
        """A row begins; it keeps to the rows' own times unless the call is late by more than half a row's time."""
        self._began = self._due if abs(now - self._due) <= self._period_s / 2 else now
        self._due = self._began + self._period_s

    def fraction(self, now: float) -> float:
        """How much of the row's time is over, 0 … 1."""
        return min(max((now - self._began) / self._period_s, 0.0), 1.0)


class ForwardClock:
    """Makes of any times some that never go back: a clock that jumps back goes on from where it was."""

    def __init__(self, slack_s: float) -> None:
        self._slack_s = slack_s  # two threads may come with times that are so much out of order
        self._last = -math.inf
        self._shift = 0.0

    def at(self, now: float) -> float:
        """The time of the caller's `now`; the last one if it is no number."""
        if not math.isfinite(now):
            return self._last if math.isfinite(self._last) else 0.0
        time = now + self._shift
        if time < self._last:
            if self._last - time > self._slack_s:
                self._shift += self._last - time
            time = self._last
        self._last = time
        return time
