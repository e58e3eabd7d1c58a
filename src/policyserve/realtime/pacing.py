"""When to ask, how long an answer may take, when it is overdue, and how long to wait after a failure. Pure."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable

_RECENT = 20  # latencies whose longest is expected next; quantiles make more chunks late (0.9: 12 %, longest: 5 %)
_TOLD = 100  # latencies that a status tells of
_LEAST_OVERDUE_S, _OVERDUE_FACTOR = 0.5, 4
_SPARE_ROWS = 2
_FIRST_RECONNECT_S, _SOON_S, _LONGEST_S = 0.05, 0.1, 1.0
_SOONER = 0.25  # of an outage's time so far: what the next attempt may wait at most
_AGAIN_IN = re.compile(r"again in (\d{1,9}) ms")


class Latencies:
    """The time from an observation to its chunk, of the last requests of this session.

    The longest decides how many rows run meanwhile. It is forgotten after 20 answers: one slow answer, as a policy's
    first, is not expected for good.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._told: deque[float] = deque(maxlen=_TOLD)
        self.overdue_s = _LEAST_OVERDUE_S  # when an answer is overdue: after four times what nineteen in twenty take
        self._before = 0.0  # the longest of the connection before, until this one has an answer

    def add(self, seconds: float) -> None:
        if math.isfinite(seconds) and seconds >= 0:
            self._recent.append(seconds)
            self._told.append(seconds)
            self._set_overdue()

    def begin(self, *, is_same_task: bool = True) -> None:
        """A new session: its server may be another. Until it has answered, the times before are all that is known."""
        self._before = self.longest_s if is_same_task else 0.0
        self._recent.clear()
        self._set_overdue()

    @property
    def longest_s(self) -> float:
        """0 if nothing is known."""
        return max(self._recent) if self._recent else self._before

    def told(self) -> tuple[float, float, float]:
        """Median, 99th percentile and longest of the last hundred; zeros without any."""
        ordered = sorted(self._told)
        return _quantile(ordered, 0.5), _quantile(ordered, 0.99), ordered[-1] if ordered else 0.0

    def _set_overdue(self) -> None:
        """It is looked at with each action, and changes with each answer."""
        self.overdue_s = max(_LEAST_OVERDUE_S, _OVERDUE_FACTOR * _quantile(sorted(self._recent), 0.95))


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def delay_steps(seconds: float, control_hz: float, pinned: int = 0) -> int:
    """Rows that run in so many seconds. pinned: rows that an interpolated motion does not give up."""
    return math.ceil(min(seconds * control_hz, 1e9) - 1e-9) + pinned if seconds > 0 else pinned


def is_due(execution_horizon: int | None, executed: int, left: int, delay: int) -> bool:
    """Whether to ask. executed: rows of the newest chunk, those that its delay made past included. delay: in rows.

    Asked at once, execution_horizon None, a chunk of H rows does not run out while any two latencies in a row make up
    less than H − 1 periods together. Later is cheaper for the server, and never so late that the rows run out
    meanwhile.
    """
    return execution_horizon is None or executed >= execution_horizon or left <= delay + _SPARE_ROWS


class BackOff:
    """How long to ask nothing after a failure. random: numbers from 0 to 1.

    They keep a fleet of robots from coming back all at once when their server does.
    """

    def __init__(self, first_s: float, random: Callable[[], float]) -> None:
        self.until = -math.inf
        self._first_s = first_s
        self._random = random
        self._failures = 0
        self._lost_since: float | None = None

    def refused(self, now: float, told: str) -> None:
        """The server did not take a request: one row's time, doubled each time to 1 s, or what its text says."""
        word = _AGAIN_IN.search(told)
        usual = min(self._first_s * 2.0 ** min(self._failures, 16), _LONGEST_S)
        self.until = now + (min(int(word[1]) / 1e3, 60.0) if word else usual)
        self._failures += 1

    def lost(self, now: float) -> None:
        """The connection is gone: a random time, which grows with the outage, so that a short one stays short."""
        self._lost_since = now if self._lost_since is None else self._lost_since
        soon = max(_SOON_S, _SOONER * (now - self._lost_since))
        ceiling = min(_FIRST_RECONNECT_S * 2.0 ** min(self._failures, 16), soon, _LONGEST_S)
        self.until = now + ceiling * self._random()
        self._failures += 1

    def over(self) -> None:
        """A request was answered."""
        self.until, self._failures, self._lost_since = -math.inf, 0, None
