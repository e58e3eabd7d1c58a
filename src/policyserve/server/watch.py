"""When a session has tried the server's patience. Pure: time is an argument, and what it is looked at for are facts.

It is looked at every watch_interval_s and not for every request, so a time-out ends a session between its own time and
one interval more.
"""

from __future__ import annotations

from typing import NamedTuple

from policyserve.server.config import ServerConfig

_TOO_SLOW, _GOING_AWAY = 1008, 1001


class Facts(NamedTuple):
    """How a session stands."""

    heard_at: float  # when its last bytes came
    received: int  # messages so far
    pending: int  # of them without an answer
    is_mid_message: bool  # a message has begun, and it is not us who do not read on
    taken: int | None  # bytes that a slow reader took since it is slow; None: it is not slow


class Verdict(NamedTuple):
    """Why the session has to end. code: of a close frame; None if the peer would not read one."""

    code: int | None
    reason: str


class Watch:
    """What was seen of one session at earlier looks."""

    def __init__(self, config: ServerConfig, now: float) -> None:
        self._config = config
        self._pinged_at = now
        self._asked_at, self._received = now, 0
        self._message_since: float | None = None
        self._unread_since, self._taken = now, -1

    def look(self, now: float, facts: Facts) -> Verdict | None:
        """Whether it has to end."""
        config = self._config
        is_new = facts.received != self._received
        self._received = facts.received
        if now - facts.heard_at > config.ping_timeout_s:
            return Verdict(None, f"silent for {config.ping_timeout_s:g} s, gone")
        if self._unread_s(now, facts.taken) > config.unread_timeout_s:
            return Verdict(None, f"took nothing of its answers for {config.unread_timeout_s:g} s (--unread-timeout-s)")
        if not facts.is_mid_message:
            self._message_since = None
        elif is_new or self._message_since is None:
            self._message_since = now
        elif now - self._message_since > config.message_timeout_s:
            told = f"a message was not whole within {config.message_timeout_s:g} s (--message-timeout-s)"
            return Verdict(_TOO_SLOW, told)
        if is_new or facts.pending:
            self._asked_at = now
        elif config.idle_timeout_s is not None and now - self._asked_at > config.idle_timeout_s:
            return Verdict(_GOING_AWAY, f"nothing was asked for {config.idle_timeout_s:g} s (--idle-timeout-s)")
        return None

    def is_ping_due(self, now: float) -> bool:
        """Whether to send a ping; counts it as sent."""
        if now - self._pinged_at < self._config.ping_interval_s * 0.99:  # timers may be early by a clock's tick
            return False
        self._pinged_at = now
        return True

    def _unread_s(self, now: float, taken: int | None) -> float:
        """For how long a slow reader has taken nothing."""
        if taken is None or taken != self._taken:
            self._unread_since, self._taken = now, -1 if taken is None else taken
        return now - self._unread_since
