"""The requests of one turn of the event loop that wait for its end, to share one call of an inline policy.

asyncio and uvloop both run the callbacks of all sockets that are ready before what call_soon() was given meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from policyserve.core.turns import Turns

T = TypeVar("T")


class Turn(Generic[T]):
    """Gathers one request per session. on_end: given them at the turn's end, or as soon as they are max_batch."""

    def __init__(self, max_batch: int, on_end: Callable[[Sequence[T]], None]) -> None:
        self.waiting: dict[Hashable, T] = {}
        self._turns = Turns()
        # Whether a session's request should wait here; if not, it is answered at once. No method around it: a lone
        # client's every request asks.
        self.takes = self._turns.waits
        self._max_batch = max_batch
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._ends_soon = False  # the event loop has been asked to end it

    def add(self, session: Hashable, request: T) -> None:
        """Have a request wait, of a session that has none here."""
        self.waiting[session] = request
        if len(self.waiting) >= self._max_batch:
            self.end()
        elif not self._ends_soon:
            self._ends_soon = True
            self._loop.call_soon(self._end_soon)

    def end(self) -> None:
        """Give away what waits, now."""
        if self.waiting:
            ended, self.waiting = self.waiting, {}
            self._turns.ended(len(ended))
            self._on_end(list(ended.values()))

    def forget(self, session: Hashable) -> None:
        """Drop a session's request."""
        self.waiting.pop(session, None)

    def _end_soon(self) -> None:
        self._ends_soon = False
        self.end()
