"""When to try again to reach a server: exponential backoff with full jitter, up to a bound. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from policyserve.client.session import ClientSession
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, WireError

_FIRST_S, _LONGEST_S = 0.05, 1.0


class NotYet(Exception):
    """No server answers here now, and trying again may help."""


class Retries:
    """The pauses between the attempts of one connection to `url`.

    started_at, until: by the caller's clock. random: numbers from 0 to 1; they keep a fleet of robots from coming back
    all at once when their server does.
    """

    def __init__(self, url: str, started_at: float, until: float, random: Callable[[], float]) -> None:
        self.attempts = 1
        self._url = url
        self._started_at = started_at
        self._until = until
        self._random = random

    def pause_s(self, reason: NotYet, now: float) -> float:
        """How long to wait before the next attempt; raises ConnectionLost when it is time to give up.

        reason: why the last one failed.
        """
        if now >= self._until:
            lost = ConnectionLost(f"cannot connect to {self._url}: {reason}{self._told(now)}")
            lost.__context__ = reason
            raise lost from None  # its text says all that the tracebacks of the attempts would
        ceiling = min(_FIRST_S * 2.0 ** min(self.attempts - 1, 16), _LONGEST_S)
        self.attempts += 1
        return min(ceiling * self._random(), self._until - now)

    def _told(self, now: float) -> str:
        return f"; tried {self.attempts} times in {now - self._started_at:.1f} s" if self.attempts > 1 else ""


class Cuttable(Protocol):
    """A link of either client."""

    def cut(self) -> None: ...


@contextmanager
def greeting_of(link: Cuttable, session: ClientSession, timeout_s: float) -> Iterator[None]:
    """Wait for a new link's greeting in here; the link is cut unless it comes.

    Raises NotYet where the server ends the connection before it, since one that restarts does so; DeadlineExceeded and
    WireError say that somebody was there.
    """
    try:
        yield
    except BaseException as error:
        link.cut()
        if isinstance(error, ConnectionLost):
            raise NotYet(str(error)) from error
        if isinstance(error, DeadlineExceeded):
            raise session.not_greeted(timeout_s) from error
        if isinstance(error, WireError):
            raise session.no_greeting(error) from error
        raise


def may_heal(error: ConnectionLost) -> bool:
    """Whether the server could not be reached for a reason that passes: it may be there later."""
    return isinstance(error.__context__, NotYet)
