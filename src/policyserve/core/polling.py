"""Whether to stay awake while waiting, judged by the waits before. Pure.

A core that goes to sleep takes 3 to 40 µs to wake up, in a virtual machine the longer: as long as a small policy takes
to answer. Who polls instead is there at once, and wastes at most as much time as he is ready to poll for.
"""

from __future__ import annotations

_OFTEN = frozenset(bits for bits in range(16) if bits.bit_count() >= 3)


class Waits:
    """The last four waits for one thing. most_s: how long to poll at most; 0: never."""

    __slots__ = ("_short", "most_s")

    def __init__(self, most_s: float) -> None:
        self.most_s = most_s
        self._short = 0  # a bit for each, the last one lowest: whether it would have ended while polling

    @property
    def are_short(self) -> bool:
        """Whether polling pays: three of the last four waits were short."""
        return self._short in _OFTEN

    def ended(self, seconds: float) -> None:
        """Note how long a wait was."""
        self._short = (self._short << 1 | (seconds < self.most_s)) & 15
