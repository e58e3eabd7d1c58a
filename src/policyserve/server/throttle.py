"""A bound on log lines, so that a hostile peer cannot fill a disk. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

_MAX_KEYS = 1024  # a peer with many addresses must not fill the memory instead


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    held_back: int = 0


class Throttle:
    """Lets `burst` lines of one key through at once, and then one per `interval_s`."""

    def __init__(self, burst: int = 50, interval_s: float = 1.0) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._buckets: dict[Hashable, _Bucket] = {}

    def passes(self, key: Hashable, now: float) -> int | None:
        """How many lines were held back since the last that passed; None if this one is to be held back, too."""
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        self._buckets[key] = bucket  # at the end: the key seen least lately is the first
        if len(self._buckets) > _MAX_KEYS:
            del self._buckets[next(iter(self._buckets))]
        bucket.tokens = min(bucket.tokens + (now - bucket.filled_at) / self._interval_s, self._burst)
        bucket.filled_at = now
        if bucket.tokens < 1:
            bucket.held_back += 1
            return None
        bucket.tokens -= 1
        held_back, bucket.held_back = bucket.held_back, 0
        return held_back


def more(held_back: int) -> str:
    """What to add to a line that passes."""
    return f" (… and {held_back} more like it)" if held_back else ""
