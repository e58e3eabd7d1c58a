"""Memory that two processes share for arrays: one process writes into slots, the other reads them where they are.

Rule 1: a slot is written once, before its number is sent, and again only after the reader has sent the number back.
Rule 2: the reader sends it back when nobody holds a view of the slot any more, so whoever gets an array may keep it.
Rule 3: the memory has no name in any file system, so that it goes when both processes are gone, however they ended.
Rule 4: it only grows. Whoever reads mapped memory that was cut off is killed by SIGBUS, and a policy must not be able
to do that to its server: on Linux the kernel refuses to shrink it (a seal). Elsewhere nothing does.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.arrays import Array

_PAGE = max(mmap.PAGESIZE, 4096)
_SEGMENT = 64 << 20  # bytes mapped at a time; memory is taken only where it is written
_KEPT = 256 << 20  # bytes of free slots; what is freed beyond goes back to the system
_GIVE_BACK = getattr(mmap, "MADV_REMOVE", None)


class Slot(NamedTuple):
    """A piece of the shared memory. segment, segment_size: the mapping that it lies in; start: where in it."""

    number: int
    segment: int
    segment_size: int
    start: int
    size: int


def shared_memory() -> int:
    """A file descriptor of memory that has no name and, where Linux has seals, never shrinks."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # a sandbox without it
            descriptor = os.memfd_create("policyserve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            _seal(descriptor)
            return descriptor
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _seal(descriptor: int) -> None:
    """Forbid to shrink it, and to add seals: one against writing, or against growing, would stop its server."""
    import fcntl

    with suppress(OSError):  # a sandbox without it
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)


class Arena:
    """The writer's end; one thread at a time. It owns the file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = 0  # of the file
        self._segment: tuple[int, int] = (0, 0)  # the newest: where it begins and its size
        self._used = 0  # bytes of it
        self._mappings: dict[int, mmap.mmap] = {}
        self._slots: dict[int, Slot] = {}  # in use
        self._free: dict[int, list[Slot]] = {}  # by size
        self._free_bytes = 0
        self._numbers = 0

    @property
    def in_use(self) -> int:
        """Slots that the reader has not sent back."""
        return len(self._slots)

    def take(self, size: int) -> tuple[Slot, Array]:
        """A slot of at least `size` bytes, and the bytes to write: page-aligned, with whatever they held before."""
        rounded = _round_up(size)
        free = self._free.get(rounded)
        if free:
            slot = free.pop()
            self._free_bytes -= rounded
        else:
            slot = self._carve(rounded)
        self._slots[slot.number] = slot
        return slot, np.frombuffer(self._mappings[slot.segment], np.uint8, rounded, slot.start)

    def give_back(self, numbers: Iterable[int]) -> None:
        """Note that the reader needs these slots no more."""
        for number in numbers:
            slot = self._slots.pop(number)
            if self._free_bytes + slot.size > _KEPT and _GIVE_BACK is not None:
                self._mappings[slot.segment].madvise(_GIVE_BACK, slot.start, slot.size)
            else:
                self._free_bytes += slot.size
            self._free.setdefault(slot.size, []).append(slot)

    def close(self) -> None:
        """Let go of the file; the memory goes with the last view of it."""
        os.close(self._descriptor)
        self._mappings.clear()

    def _carve(self, size: int) -> Slot:
        begin, segment_size = self._segment
        if self._used + size > segment_size:
            begin, segment_size = self._grow(size)
        self._numbers += 1
        slot = Slot(self._numbers, begin, segment_size, self._used, size)
        self._used += size
        return slot

    def _grow(self, size: int) -> tuple[int, int]:
        begin, segment_size = self._end, max(_SEGMENT, size)
        os.ftruncate(self._descriptor, begin + segment_size)
        self._mappings[begin] = mmap.mmap(self._descriptor, segment_size, offset=begin)
        self._end = begin + segment_size
        self._segment, self._used = (begin, segment_size), 0
        return self._segment


class ArenaReader:
    """The reader's end. Views may be made and die in any thread, the rest is for one. It owns the file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mappings: dict[int, mmap.mmap] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._released: list[int] = []

    def view(self, slot: Slot) -> Array:
        """The slot's bytes, writable. Arrays made of them keep them until the last is gone."""
        mapping = self._mappings.get(slot.segment)
        if mapping is None:
            made = mmap.mmap(self._descriptor, slot.segment_size, offset=slot.segment)
            mapping = self._mappings.setdefault(slot.segment, made)  # another thread may have been quicker
        # An array of its own on the mapping and no slice of a larger one: NumPy makes the views of a slice views of
        # the larger array, and the slice would die before them.
        root = np.frombuffer(mapping, np.uint8, slot.size, slot.start)
        self._watched[slot.number] = weakref.ref(root, lambda _, number=slot.number: self._released.append(number))
        return root

    def take_released(self) -> list[int]:
        """The slots whose last view has gone since the last call: to be sent back to the writer."""
        if not self._released:
            return []
        released: list[int] = []
        while self._released:
            released.append(self._released.pop())
            del self._watched[released[-1]]
        return released

    def close(self) -> None:
        """Let go of the file; the memory goes with the last view of it."""
        os.close(self._descriptor)
        self._mappings.clear()


def _round_up(size: int) -> int:
    """To pages, and to an eighth of the next power of two: slots of nearly the same size are shared."""
    step = max(1 << max(size.bit_length() - 4, 0), _PAGE)
    return -(-size // step) * step
