"""Buffers for large messages, used again so that a camera frame costs no page faults.

The C library gives every block over 128 KiB back to the kernel, and taking it again costs a fault per page: half the
time of a large message. A buffer is given out again only when nobody holds a view of it any more.
"""

from __future__ import annotations

from mmap import mmap
from typing import TypeAlias

Block: TypeAlias = bytearray | mmap

_SMALLEST = 1 << 16  # below it the allocator keeps its own blocks
_LAZY = 1 << 20  # from it on a buffer takes memory as it is written: a peer that announces 64 MiB has sent 14 bytes


class BufferPool:
    """Keeps up to max_bytes of buffers; one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept_bytes = 0
        self.lent: Block = bytearray()  # what lend() gave last
        self._kept: dict[int, list[_Kept]] = {}  # by size

    def take(self, size: int) -> Block:
        """A buffer of at least `size` bytes with whatever it held before; exactly `size` if that is small."""
        if size < _SMALLEST:
            return bytearray(size)
        rounded = _round_up(size)
        kept = self._kept.setdefault(rounded, [])
        # Who was given out last is in the processor's cache, if it is free; else who was given out first probably is.
        if kept and _is_free(kept[-1].buffer):
            kept[-1].is_wanted = True
            return kept[-1].buffer
        for index, one in enumerate(kept):
            if _is_free(one.buffer):
                kept.append(kept.pop(index))
                one.is_wanted = True
                return one.buffer
        buffer = bytearray(rounded) if rounded < _LAZY else mmap(-1, rounded)
        if self._make_room(rounded):
            self._kept_bytes += rounded
            kept.append(_Kept(buffer))
        return buffer

    def lend(self, size: int) -> Block:
        """Give a buffer that is lent again by the next call, unless somebody holds a view of it by then.

        It stands in `lent`, so that a peer that writes nothing after all holds no memory.
        """
        self.lent = self.take(size)
        return self.lent

    def shrink(self) -> None:
        """Drop the buffers that were not needed since the last call: what a rush has left."""
        self.lent = bytearray()
        for size, kept in list(self._kept.items()):
            idle = [one for one in kept if not one.is_wanted and _is_free(one.buffer)]
            if idle:
                self._kept_bytes -= size * len(idle)
                kept[:] = [one for one in kept if one not in idle]
            for one in kept:
                one.is_wanted = False
            if not kept:
                del self._kept[size]

    @property
    def kept_bytes(self) -> int:
        """What the pool holds, given out or not."""
        return self._kept_bytes

    def _make_room(self, size: int) -> bool:
        """Drop buffers of other sizes that nobody uses, until `size` more fit."""
        for other, kept in self._kept.items():
            while other != size and kept and self._kept_bytes + size > self._max_bytes and _is_free(kept[0].buffer):
                kept.pop(0)
                self._kept_bytes -= other
        return self._kept_bytes + size <= self._max_bytes


class _Kept:
    """A buffer of the pool. is_wanted: somebody needed it since the last shrink()."""

    __slots__ = ("buffer", "is_wanted")

    def __init__(self, buffer: Block) -> None:
        self.buffer = buffer
        self.is_wanted = True


def _round_up(size: int) -> int:
    """To an eighth of the next power of two: messages of nearly the same size share buffers."""
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def _is_free(buffer: Block) -> bool:
    """Whether nobody holds a view: what has views refuses to change its size. The size ends as it was."""
    try:
        if isinstance(buffer, bytearray):
            buffer.pop()
            buffer.append(0)
        else:
            buffer.resize(len(buffer))
    except BufferError:
        return False
    except (OSError, SystemError):
        return True  # no views, and a system that cannot do it
    return True
