"""Buffers for large messages, used again so that a camera frame costs no page faults.

The C library gives every block over 128 KiB back to the kernel, and taking it again costs a fault per page: half the
time of a large message. A buffer is given out again only when nobody holds a view of it any more.
"""

from __future__ import annotations

_SMALLEST = 1 << 16  # below it the allocator keeps its own blocks


class BufferPool:
    """Keeps up to max_bytes of buffers; one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept_bytes = 0
        self._kept: dict[int, list[bytearray]] = {}  # by size

    def take(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes with whatever it held before; exactly `size` if that is small."""
        if size < _SMALLEST:
            return bytearray(size)
        rounded = _round_up(size)
        kept = self._kept.setdefault(rounded, [])
        for index, buffer in enumerate(kept):
            if _is_free(buffer):
                # To the end of the line: who was given out last is probably in use, and looked at last.
                kept.append(kept.pop(index))
                return buffer
        buffer = bytearray(rounded)
        if self._make_room(rounded):
            self._kept_bytes += rounded
            self._kept.setdefault(rounded, []).append(buffer)
        return buffer

    @property
    def kept_bytes(self) -> int:
        """What the pool holds, given out or not."""
        return self._kept_bytes

    def _make_room(self, size: int) -> bool:
        """Drop buffers of other sizes that nobody uses, until `size` more fit."""
        for other, kept in self._kept.items():
            while other != size and kept and self._kept_bytes + size > self._max_bytes and _is_free(kept[0]):
                kept.pop(0)
                self._kept_bytes -= other
        return self._kept_bytes + size <= self._max_bytes


def _round_up(size: int) -> int:
    """To an eighth of the next power of two: messages of nearly the same size share buffers."""
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def _is_free(buffer: bytearray) -> bool:
    """Whether nobody holds a view: a bytearray with views refuses to change its size. The size ends as it was."""
    try:
        buffer.pop()
    except BufferError:
        return False
    buffer.append(0)
    return True
