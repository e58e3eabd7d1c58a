"""Bounds what many alike may write to the log. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

_MAX_KEYS = 1024  # so that a peer with many addresses does not fill the memory with keys


class Rate(NamedTuple):
    """How much passes at once, and then per second: lines, and the characters in them."""

    burst: float = 50
    per_s: float = 1.0
    burst_size: float = 1 << 16
    size_per_s: float = 1 << 10


OF_ONE_PEER = Rate()
OF_ALL_PEERS = Rate(500, 10, 10 << 16, 10 << 10)


@dataclass(slots=True)
class _Bucket:
    lines: float
    size: float
    filled_at: float
    suppressed: int = 0


class Throttle:
    """Lets lines of one key through at a rate."""

    def __init__(self, rate: Rate = OF_ONE_PEER) -> None:
        self._rate = rate
        self._buckets: dict[Hashable, _Bucket] = {}

    def passes(self, key: Hashable, now: float, before: int = 0) -> int | None:
        """How many lines were suppressed since the last that passed; None if this one is to be suppressed, too.

        before: how many another throttle suppressed, which let this one through.
        """
        bucket = self._filled(key, now)
        if bucket.lines < 1 or bucket.size <= 0:
            bucket.suppressed += 1 + before
            return None
        bucket.lines -= 1
        suppressed, bucket.suppressed = bucket.suppressed + before, 0
        return suppressed

    def spend(self, key: Hashable, size: int) -> None:
        """A line that passed has so many characters. What is more than there is delays the next."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.size -= size

    def _filled(self, key: Hashable, now: float) -> _Bucket:
        rate = self._rate
        bucket = self._buckets.pop(key, None) or _Bucket(rate.burst, rate.burst_size, now)
        self._buckets[key] = bucket  # at the end: the key seen least lately is the first
        if len(self._buckets) > _MAX_KEYS:
            del self._buckets[next(iter(self._buckets))]
        elapsed = now - bucket.filled_at
        bucket.lines = min(bucket.lines + elapsed * rate.per_s, rate.burst)
        bucket.size = min(bucket.size + elapsed * rate.size_per_s, rate.burst_size)
        bucket.filled_at = now
        return bucket


class LogThrottle:
    """Lets lines of one kind through for each peer's address, and for all peers together."""

    def __init__(self) -> None:
        self._of_one, self._of_all = Throttle(OF_ONE_PEER), Throttle(OF_ALL_PEERS)

    def passes(self, kind: str, address: str, now: float) -> int | None:
        """How many lines were suppressed since the last that passed; None if this one is to be suppressed, too."""
        suppressed = self._of_one.passes((kind, address), now)
        return None if suppressed is None else self._of_all.passes(kind, now, suppressed)

    def spend(self, kind: str, address: str, size: int) -> None:
        """A line that passed has so many characters."""
        self._of_one.spend((kind, address), size)
        self._of_all.spend(kind, size)


def suppressed_note(suppressed: int) -> str:
    """The end of a line that passes, which tells how many like it were suppressed before."""
    return f" (… and {suppressed} more like it)" if suppressed else ""
