"""Limits on what one peer may cost the server: time (Watch), memory (Budget), lines in the log (Throttle).

Pure: time is an argument.

Watch: it is asked every watch_interval_s and not for every request, so a time-out ends a session between its own time
and one interval more.
Budget: messages beyond a read's size are counted as they come in, small ones and what is made of them by the 64 KiB.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from policyserve.server.config import Timeouts

_TOO_SLOW, _GOING_AWAY = 1008, 1001
_MAX_KEYS = 1024  # so that a peer with many addresses does not fill the memory with keys


class Facts(NamedTuple):
    """How a session stands."""

    heard_at: float  # when its last bytes came
    received: int  # messages so far
    pending: int  # how many of them have no answer yet
    is_mid_message: bool  # a message has begun, and our reading is not paused
    taken: int | None  # bytes that it took since it became a slow reader; None: it is not slow


class Verdict(NamedTuple):
    """Why the session has to end. code: of a close frame; None if the peer would not read one."""

    code: int | None
    reason: str


class Watch:
    """What was seen of one session at earlier looks."""

    def __init__(self, timeouts: Timeouts, now: float) -> None:
        self._timeouts = timeouts
        self._pinged_at = now
        self._asked_at, self._received = now, 0
        self._message_since: float | None = None
        self._unread_since, self._taken = now, -1

    def look(self, now: float, facts: Facts) -> Verdict | None:
        """Whether it has to end."""
        timeouts = self._timeouts
        is_new = facts.received != self._received
        self._received = facts.received
        if now - facts.heard_at > timeouts.ping_timeout_s:
            return Verdict(None, f"silent for {timeouts.ping_timeout_s:g} s, gone")
        if self._unread_s(now, facts.taken) > timeouts.unread_timeout_s:
            return Verdict(
                None, f"took nothing of its answers for {timeouts.unread_timeout_s:g} s (--unread-timeout-s)"
            )
        if not facts.is_mid_message:
            self._message_since = None
        elif is_new or self._message_since is None:
            self._message_since = now
        elif now - self._message_since > timeouts.message_timeout_s:
            told = f"a message was not whole within {timeouts.message_timeout_s:g} s (--message-timeout-s)"
            return Verdict(_TOO_SLOW, told)
        if is_new or facts.pending:
            self._asked_at = now
        elif timeouts.idle_timeout_s is not None and now - self._asked_at > timeouts.idle_timeout_s:
            return Verdict(_GOING_AWAY, f"nothing was asked for {timeouts.idle_timeout_s:g} s (--idle-timeout-s)")
        return None

    def is_ping_due(self, now: float) -> bool:
        """Whether to send a ping; counts it as sent."""
        if now - self._pinged_at < self._timeouts.ping_interval_s * 0.99:  # a timer may fire a little early
            return False
        self._pinged_at = now
        return True

    def _unread_s(self, now: float, taken: int | None) -> float:
        """For how long a slow reader has taken nothing."""
        if taken is None or taken != self._taken:
            self._unread_since, self._taken = now, -1 if taken is None else taken
        return now - self._unread_since


class Holder(Protocol):
    """A peer, as the budget sees it."""

    def held_bytes(self) -> int:
        """What it makes the server hold now."""
        ...

    def give_up(self) -> None:
        """End it: it holds most, and there is no room."""
        ...


class Budget:
    """The bytes that all peers together may make the server hold.

    It counts what comes in and not what is released. Only when the count reaches the bound does it ask each peer what
    it still holds, and end those that hold most. on_relief: called when it has ended some.
    """

    def __init__(
        self, max_bytes: int, holders: Callable[[], Iterable[Holder]], on_relief: Callable[[], object] = int
    ) -> None:
        self._max_bytes = max_bytes
        self._on_relief = on_relief
        self._holders = holders
        self._counted = 0

    def grow(self, count: int) -> None:
        """`count` bytes more are held. Beyond the bound those who hold most are given up, until the rest fits."""
        self._counted += count
        if self._counted > self._max_bytes:
            self._relieve()

    def _relieve(self) -> None:
        held = sorted(((holder.held_bytes(), index, holder) for index, holder in enumerate(self._holders())))
        self._counted = sum(count for count, _, _ in held)
        is_relieved = False
        while self._counted > self._max_bytes and held:
            count, _, holder = held.pop()
            self._counted -= count
            is_relieved = True
            holder.give_up()
        if is_relieved:
            self._on_relief()


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    suppressed: int = 0


class Throttle:
    """Lets `burst` lines of one key through at once, and then one per `interval_s`."""

    def __init__(self, burst: int = 50, interval_s: float = 1.0) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._buckets: dict[Hashable, _Bucket] = {}

    def passes(self, key: Hashable, now: float) -> int | None:
        """How many lines were suppressed since the last that passed; None if this one is to be suppressed, too."""
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        self._buckets[key] = bucket  # at the end: the key seen least lately is the first
        if len(self._buckets) > _MAX_KEYS:
            del self._buckets[next(iter(self._buckets))]
        bucket.tokens = min(bucket.tokens + (now - bucket.filled_at) / self._interval_s, self._burst)
        bucket.filled_at = now
        if bucket.tokens < 1:
            bucket.suppressed += 1
            return None
        bucket.tokens -= 1
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return suppressed


def suppressed_note(suppressed: int) -> str:
    """The end of a line that passes, which tells how many like it were suppressed before."""
    return f" (… and {suppressed} more like it)" if suppressed else ""
