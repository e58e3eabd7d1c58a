"""Memory that is free again after large messages, and goes back to the kernel."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from policyserve.core import memory

_GIVEN_BACK_EVERY_S = 1.0  # at most: whoever allocates waits meanwhile
_LOOKED_EVERY_S = 10.0


class SpareMemory:
    """Gives back what is free. large_bytes: of large messages, since the server's start.

    Everything here is called in the event loop's thread; what gives back is a thread of its own.
    """

    def __init__(self, large_bytes: Callable[[], int]) -> None:
        self._large_bytes = large_bytes
        self._seen_bytes = 0  # of large messages, at the last look
        self._has_given_back = True  # nothing large came since memory was given back
        self._may_give_back_at = 0.0
        self._looking: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on whether a rush of large messages is over; there is an event loop."""
        self.look()
        self._looking = asyncio.get_running_loop().call_later(_LOOKED_EVERY_S, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def look(self) -> None:
        """Give back, once, the memory of a rush that is over; while large messages come they need it again at once."""
        is_quiet, self._seen_bytes = self._seen_bytes == self._large_bytes(), self._large_bytes()
        if not is_quiet:
            self._has_given_back = False
        elif not self._has_given_back:
            self._has_given_back = True
            self.give_back()

    def give_back(self) -> None:
        """Give the kernel what is free, also when peers were ended for want of room: it lies between what is not."""
        now = time.monotonic()
        if now >= self._may_give_back_at:
            self._may_give_back_at = now + _GIVEN_BACK_EVERY_S
            # It takes some 10 ms for each 20 MiB, and lets go of the interpreter meanwhile.
            threading.Thread(target=memory.give_back, name="giving memory back", daemon=True).start()
