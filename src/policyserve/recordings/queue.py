"""Messages from a server to the process that writes them: bytes in shared memory, and what they are in a pipe.

Rule 1: bytes are written before their entry is, and their room is used again only after the reader has counted them.
The reader works on them where they lie, and counts them when it is done.
Rule 2: neither end waits for the other: what has no room is refused at once.
Rule 3: what was freed last is used first (engine/isolated/arena.py). Where the writer keeps up, messages lie in the
same few pages again and again; in a ring each meets pages that are not there yet, which takes eight times the copy.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import NamedTuple

from policyserve.engine.isolated.arena import Arena, ArenaReader, Slot, shared_memory

_COUNT_BYTES = 4096
_PIPE = 1 << 20  # bytes: entries of 16,000 messages
_READ = 1 << 16
_ENTRY = struct.Struct("=BBHIQQqQQQQQQ")


class Kind(IntEnum):
    """What an entry's bytes are. EVENT: JSON, of layout's events."""

    REQUEST = 1
    REPLY = 2
    EVENT = 3


class Entry(NamedTuple):
    """One message. number: of the request that it is or answers. at: time.monotonic_ns. slot: where its bytes lie.

    waiting: bytes that were before it when it was handed over.
    """

    kind: int
    is_text: bool
    session: int
    number: int
    size: int
    at: int
    waiting: int
    slot: Slot


class Descriptors(NamedTuple):
    """What the reading end gets: memory, memory for its count, and the pipe's end."""

    memory: int
    counter: int
    entries: int

    def close(self) -> None:
        for descriptor in self:
            os.close(descriptor)


class Outgoing:
    """The server's end, of at most `most` bytes that are not read yet. other_end: for the reader; to be closed here.

    Raises OSError where there is no shared memory.
    """

    def __init__(self, most: int) -> None:
        memory, count = shared_memory(), shared_memory()
        os.ftruncate(count, _COUNT_BYTES)
        entries, self._entries = os.pipe()
        os.set_blocking(self._entries, False)
        _widen(self._entries)
        self.other_end = Descriptors(memory, count, entries)
        self.used = 0
        self._most = most
        self._arena = Arena(os.dup(memory))
        self._counted = _Count(os.dup(count))
        self._taken: deque[Slot] = deque()  # those that are not counted yet, the oldest first
        self._freed = 0

    def put(
        self, kind: Kind, session: int, number: int, data: bytes | memoryview, at: int, *, is_text: bool, spare: int = 0
    ) -> bool:
        """Hand over a message; False if there is no room for it and `spare` bytes. Raises OSError without a reader."""
        self._reclaim()
        size = len(data)
        if self.used + size + spare > self._most:
            return False
        slot, memory = self._arena.take(max(size, 1))
        memory.data[:size] = data  # and not by NumPy, which lets go of the interpreter meanwhile
        try:
            os.write(self._entries, _ENTRY.pack(kind, is_text, 0, session, number, size, at, self.used, *slot))
        except BlockingIOError:
            self._arena.give_back((slot.number,))
            return False
        self._taken.append(slot)
        self.used += slot.size
        return True

    def close(self) -> None:
        """Nothing follows: the reader reads what is there."""
        os.close(self._entries)
        self._arena.close()
        self._counted.close()

    def _reclaim(self) -> None:
        """Take back the room of what was read."""
        counted = self._counted.value
        while self._freed < counted:
            slot = self._taken.popleft()
            self._arena.give_back((slot.number,))
            self.used -= slot.size
            self._freed += 1


class Incoming:
    """The writing process's end, which owns the descriptors. has_ended: the other end is closed, and all is read."""

    def __init__(self, descriptors: Descriptors) -> None:
        self.descriptor = descriptors.entries
        self.has_ended = False
        self._memory = ArenaReader(descriptors.memory)
        self._count = _Count(descriptors.counter)
        self._rest = b""

    def read(self) -> Iterator[Entry]:
        """The entries that are there, waiting for the first; none once the server's end is closed."""
        data = self._rest + os.read(self.descriptor, _READ)
        self.has_ended = len(data) == len(self._rest)
        whole = len(data) - len(data) % _ENTRY.size
        self._rest = data[whole:]
        for kind, is_text, _, session, number, size, at, waiting, *slot in _ENTRY.iter_unpack(data[:whole]):
            yield Entry(kind, bool(is_text), session, number, size, at, waiting, Slot(*slot))

    @contextmanager
    def lent(self, entry: Entry) -> Iterator[memoryview]:
        """An entry's bytes where they lie; afterwards their room is the server's. In the entries' order, each once."""
        memory = self._memory.view(entry.slot)
        try:
            yield memory.data[: entry.size]
        finally:
            del memory
            self._memory.take_released()
            self._count.value += 1

    def close(self) -> None:
        """Read nothing more."""
        os.close(self.descriptor)
        self._memory.close()
        self._count.close()


class _Count:
    """A number in shared memory: one process writes it, in one store of eight bytes, the other reads it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapping = mmap.mmap(descriptor, _COUNT_BYTES)
        self._numbers = memoryview(self._mapping).cast("Q")

    @property
    def value(self) -> int:
        return self._numbers[0]

    @value.setter
    def value(self, value: int) -> None:
        self._numbers[0] = value

    def close(self) -> None:
        self._numbers.release()
        self._mapping.close()
        os.close(self._descriptor)


def _widen(descriptor: int) -> None:
    """Give a pipe more room, where the system can and lets us."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
