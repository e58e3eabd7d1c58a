"""What both clients ask of a socket and a clock."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any


def readable(connected: Any) -> Callable[[], bool]:
    """A function that tells whether there is something to read; it costs a microsecond at most."""
    has_pending = getattr(connected, "pending", lambda: 0)  # what TLS has decrypted already
    if not hasattr(select, "poll"):
        return lambda: bool(has_pending() or select.select([connected], [], [], 0)[0])
    poller = select.poll()
    poller.register(connected, select.POLLIN)
    return lambda: bool(has_pending() or poller.poll(0))


def left_s(deadline: float) -> float:
    """The time until `deadline`, by time.monotonic(); a little where it has passed, since 0 means not to wait."""
    return max(deadline - time.monotonic(), 0.001)
