"""Limits on what one peer may cost the server: time (Watch, Pace), memory (Budget).

Pure: time is an argument.

Watch: it is asked every watch_interval_s and not for every request, so a time-out ends a session between its own time
and one interval more.
Budget: messages beyond a read's size are counted as they come in, small ones and what is made of them by the 64 KiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from policyserve.core.callbacks import do_nothing
from policyserve.server.config import Timeouts

_TOO_SLOW, _GOING_AWAY = 1008, 1001
_BURST, _PER_S = 100, 100  # frames that ask for nothing
_LONGEST_FLOOD_S = 60.0


def no_room(max_mib: float) -> str:
    """Why a session is ended that holds most when the server has no room."""
    return f"the server holds {max_mib:g} MiB of messages (--max-buffered-mib)"


def not_whole(what: str, timeout_s: float) -> str:
    """Why a message is given up that has not come to its end. what: "a message", "a body"."""
    return f"{what} was not whole within {timeout_s:g} s (--message-timeout-s)"


def nothing_asked(timeout_s: float) -> str:
    """Why an idle session is ended."""
    return f"nothing was asked for {timeout_s:g} s (--idle-timeout-s)"


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
            return Verdict(_TOO_SLOW, not_whole("a message", timeouts.message_timeout_s))
        if is_new or facts.pending:
            self._asked_at = now
        elif timeouts.idle_timeout_s is not None and now - self._asked_at > timeouts.idle_timeout_s:
            return Verdict(_GOING_AWAY, nothing_asked(timeouts.idle_timeout_s))
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


class Pace:
    """How soon the next frames of a peer are read that sends more of them at once than one turn takes.

    Frames that ask for nothing count: pings, pongs, small fragments, requests that are refused unread. A robot has few,
    and waits for their answers. `_BURST` of them are free, then `_PER_S` a second are read.
    """

    def __init__(self) -> None:
        self.wait_s = 0.0  # before the next are read
        self._spent = 0
        self._tokens = float(_BURST)
        self._filled_at: float | None = None
        self._flooding_since: float | None = None

    def count(self, now: float, spent: int) -> Verdict | None:
        """So many of these frames were read since the peer came; whether it has to end."""
        if self._filled_at is not None:
            self._tokens = min(self._tokens + (now - self._filled_at) * _PER_S, _BURST)
        if self._tokens > _BURST / 2:
            self._flooding_since = None
        self._filled_at = now
        self._tokens -= spent - self._spent
        self._spent = spent
        self.wait_s = max(-self._tokens / _PER_S, 0.0)
        if self._tokens < 0 and self._flooding_since is None:
            self._flooding_since = now
        if self._flooding_since is None or now - self._flooding_since <= _LONGEST_FLOOD_S:
            return None
        told = f"for {_LONGEST_FLOOD_S:g} s more than {_PER_S} frames a second waited that ask for nothing"
        return Verdict(_TOO_SLOW, told)


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
        self, max_bytes: int, holders: Callable[[], Iterable[Holder]], on_relief: Callable[[], object] = do_nothing
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
