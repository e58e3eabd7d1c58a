"""When to try again to reach a server: exponential backoff with full jitter, up to a bound. Pure."""

from __future__ import annotations

from collections.abc import Callable

_FIRST_S, _LONGEST_S = 0.05, 1.0


class Retries:
    """The pauses between the attempts of one connection.

    started_at, until: by the caller's clock. random: numbers from 0 to 1; they keep a fleet of robots from coming back
    all at once when their server does.
    """

    def __init__(self, started_at: float, until: float, random: Callable[[], float]) -> None:
        self.attempts = 1
        self._started_at = started_at
        self._until = until
        self._random = random

    def pause_s(self, now: float) -> float | None:
        """How long to wait before the next attempt; None: give up."""
        if now >= self._until:
            return None
        ceiling = min(_FIRST_S * 2.0 ** min(self.attempts - 1, 16), _LONGEST_S)
        self.attempts += 1
        return min(ceiling * self._random(), self._until - now)

    def told(self, now: float) -> str:
        """How long it was tried, for the error; empty after a single attempt."""
        return f"; tried {self.attempts} times in {now - self._started_at:.1f} s" if self.attempts > 1 else ""
