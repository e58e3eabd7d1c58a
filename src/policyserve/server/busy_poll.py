"""Has the event loop poll its sockets between an answer and the next request, while clients come back at once.

See core/polling.py for when. A simulator on the same machine is answered up to twice as soon; a robot that asks every
20 ms causes no polling.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from policyserve.core.callbacks import do_nothing
from policyserve.core.polling import RecentWaits

# On few cores the clients need the core that this loop polls on: it is yielded between two polls.
_give_way: Callable[[], object] = getattr(os, "sched_yield", do_nothing)


class BusyPoll:
    """Told of every answer and of what comes after it, in the event loop's thread.

    max_poll_s: how long to poll after an answer, and after whatever comes then (the rest of a message, say); 0: never.
    is_working: whether a policy is at work, which may need the interpreter.
    """

    def __init__(self, max_poll_s: float, is_working: Callable[[], bool]) -> None:
        self._is_working = is_working
        self._waits = RecentWaits(max_poll_s)
        self._is_answered = False  # and nothing came since
        self._since = 0.0
        self._is_polling = False

    def on_bytes(self, now: float) -> None:
        """Bytes came, by time.monotonic()."""
        if self._is_answered:
            self._is_answered = False
            self._waits.add(now - self._since)
        self._since = now

    def on_answer(self, now: float) -> None:
        """An answer went out."""
        self._is_answered = True
        self._since = now
        if self._waits.are_short and not self._is_polling:
            self._is_polling = True
            self._poll(asyncio.get_running_loop())

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        if time.monotonic() < self._since + self._waits.max_poll_s and not self._is_working():
            _give_way()
            loop.call_soon(self._poll, loop)  # with something to do the loop only looks, and does not sleep
        else:
            self._is_polling = False
