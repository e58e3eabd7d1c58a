"""Whether a thread that waits should poll, or sleep until it is woken, judged by its last waits. Pure.

Waking up takes a core 3 to 40 µs, in a virtual machine the longer, which is as long as a small policy takes to answer.
A thread that polls notices within a microsecond, and wastes at most max_poll_s.
"""

from __future__ import annotations

_OFTEN = frozenset(bits for bits in range(16) if bits.bit_count() >= 3)


class RecentWaits:
    """The last four waits for one thing. max_poll_s: how long to poll at most; 0: never."""

    __slots__ = ("_short", "max_poll_s")

    def __init__(self, max_poll_s: float) -> None:
        self.max_poll_s = max_poll_s
        self._short = 0  # a bit for each, the last one lowest: whether it would have ended while polling

    @property
    def are_short(self) -> bool:
        """Whether polling pays: three of the last four waits were short."""
        return self._short in _OFTEN

    def add(self, seconds: float) -> None:
        """Note how long a wait was."""
        self._short = (self._short << 1 | (seconds < self.max_poll_s)) & 15
