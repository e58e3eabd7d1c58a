"""Messages from a server to the process that writes them: bytes in shared memory, and what they are in a pipe.

Rule 1: bytes are written before their entry is, and again only after the reader has said that it has them.
Rule 2: neither end waits for the other: what has no room is refused at once.
Rule 3: where the reader has all, the next bytes go to the beginning again: of a ring of 256 MiB a writer that keeps up
touches the first few, which stay in the processor's caches and are memory that the system need not find.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from policyserve.engine.isolated.arena import shared_memory

_HEAD = 4096  # bytes in front, where the reader says how far it is
_PIPE = 1 << 20  # bytes: entries of 26,000 messages
_READ = 1 << 16
_ENTRY = struct.Struct("=BBHIQQQq")


class Kind(IntEnum):
    """What an entry's bytes are. EVENT: JSON, of layout's events."""

    REQUEST = 1
    REPLY = 2
    EVENT = 3


class Entry(NamedTuple):
    """One message. number: of the request that it is or answers. at: time.monotonic_ns."""

    kind: int
    is_text: int
    session: int
    number: int
    place: int
    size: int
    at: int


def new_ring(size: int) -> int:
    """A file descriptor of shared memory for a ring of so many bytes. Raises OSError."""
    descriptor = shared_memory()
    try:
        os.ftruncate(descriptor, _HEAD + size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class _Mapped:
    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._mapping = mmap.mmap(descriptor, _HEAD + size)
        self._data = memoryview(self._mapping)[_HEAD:]
        # One aligned store of eight bytes, so that the other process sees the old number or the new one.
        self._read_to = np.frombuffer(self._mapping, np.uint64, 1)

    def close(self) -> None:
        """Let go of the memory."""
        self._data.release()
        self._read_to = np.zeros(1, np.uint64)
        with suppress(BufferError):
            self._mapping.close()


class RingWriter(_Mapped):
    """The server's end. entries: a pipe, which is made non-blocking; it belongs to this end then."""

    def __init__(self, descriptor: int, size: int, entries: int) -> None:
        super().__init__(descriptor, size)
        self._entries = entries
        os.set_blocking(entries, False)
        _widen(entries)
        self._head = 0  # of all bytes so far, those included that were skipped
        self._begin = 0  # where it began anew for the last time

    @property
    def used(self) -> int:
        """Bytes that the reader does not have yet."""
        return self._head - max(int(self._read_to[0]), self._begin)

    def put(
        self, kind: Kind, session: int, number: int, data: bytes | memoryview, at: int, *, is_text: bool, spare: int = 0
    ) -> bool:
        """Hand over a message; False if there is no room for it and `spare` bytes. Raises OSError without a reader."""
        size, head = len(data), self._head
        if int(self._read_to[0]) >= head:
            head = self._begin = self._head = -(-head // self.size) * self.size
        if self.used + size + spare > self.size:
            return False
        start = head % self.size
        first = min(size, self.size - start)
        self._data[start : start + first] = data[:first]
        if first < size:
            self._data[: size - first] = data[first:]
        try:
            os.write(self._entries, _ENTRY.pack(kind, is_text, 0, session, number, head, size, at))
        except BlockingIOError:
            return False
        self._head = head + size
        return True

    def close(self) -> None:
        os.close(self._entries)
        super().close()


class RingReader(_Mapped):
    """The writing process's end. descriptor: the pipe of entries."""

    def __init__(self, descriptor: int, size: int, entries: int) -> None:
        super().__init__(descriptor, size)
        self.descriptor = entries
        self._rest = b""
        self.has_ended = False  # the server's end is closed, and all is read

    def read(self) -> Iterator[Entry]:
        """The entries that are there, waiting for the first; none once the server's end is closed."""
        data = self._rest + os.read(self.descriptor, _READ)
        self.has_ended = len(data) == len(self._rest)
        whole = len(data) - len(data) % _ENTRY.size
        self._rest = data[whole:]
        for kind, is_text, _, session, number, place, size, at in _ENTRY.iter_unpack(data[:whole]):
            yield Entry(kind, is_text, session, number, place, size, at)

    def data(self, entry: Entry) -> bytes:
        """A copy of an entry's bytes, whose room is the server's again."""
        start = entry.place % self.size
        first = min(entry.size, self.size - start)
        data = bytes(self._data[start : start + first])
        if first < entry.size:
            data += bytes(self._data[: entry.size - first])
        self._read_to[0] = entry.place + entry.size
        return data


def _widen(descriptor: int) -> None:
    """Give a pipe more room, where the system can and lets us."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
