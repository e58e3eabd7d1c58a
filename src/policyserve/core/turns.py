"""Whether an inline policy answers a request at once, or with the others of the event loop's turn. Pure: it counts.

A request that waits for the turn's end shares one call with all that were read in that turn; if it was alone, it waited
for nothing. A session that asks alone never waits: it takes two to try, and a turn that was shared lately to go on.
"""

from __future__ import annotations

from collections.abc import Hashable

_TRUST = 8  # turns of one request that are forgiven after a shared one
_PAUSE = 16  # changes of the session between a vain try and the next


class Turns:
    """Decides from the turns before, which ended() tells it of."""

    def __init__(self) -> None:
        self._credit = -1  # above 0: wait. Below: how often the session changes until the next try
        self._last: Hashable = None

    def waits(self, session: Hashable) -> bool:
        """Whether this session's request should wait for the turn's end."""
        if self._credit > 0:
            return True
        if session != self._last:
            self._last = session
            self._credit += 1
        return self._credit > 0

    def ended(self, count: int) -> None:
        """A turn that was waited for brought `count` requests."""
        if count > 1:
            self._credit = _TRUST
            return
        self._credit -= 1
        if self._credit == 0:
            self._credit = -_PAUSE
