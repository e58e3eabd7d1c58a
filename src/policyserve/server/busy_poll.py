"""Keeps the event loop awake between an answer and the next request, while clients come back at once.

It asks the system for news over and over instead of sleeping until there are any: see core/polling.py. Robots that ask
every 20 ms do not have it poll; a simulator on the same machine is answered up to twice as soon.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from policyserve.core.polling import Waits

# Several simulators on few cores must not wait for a server that waits for them.
_give_way: Callable[[], object] = getattr(os, "sched_yield", int)


class BusyPoll:
    """Told of every answer and of what comes after it, in the event loop's thread.

    most_s: how long to poll after an answer and after whatever comes then, the rest of a message say; 0: never.
    is_working: whether a policy is at work, which may need the interpreter.
    """

    def __init__(self, most_s: float, is_working: Callable[[], bool]) -> None:
        self._is_working = is_working
        self._waits = Waits(most_s)
        self._is_answered = False  # and nothing came since
        self._since = 0.0
        self._is_polling = False

    def on_bytes(self, now: float) -> None:
        """Bytes came, by time.monotonic()."""
        if self._is_answered:
            self._is_answered = False
            self._waits.ended(now - self._since)
        self._since = now

    def on_answer(self, now: float) -> None:
        """An answer went out."""
        self._is_answered = True
        self._since = now
        if self._waits.are_short and not self._is_polling:
            self._is_polling = True
            self._poll(asyncio.get_running_loop())

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        if time.monotonic() < self._since + self._waits.most_s and not self._is_working():
            _give_way()
            loop.call_soon(self._poll, loop)  # with something to do the loop only looks, and does not sleep
        else:
            self._is_polling = False
