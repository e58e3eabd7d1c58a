"""WebSocket frames written out by hand, and handed to a reader as a socket would.

They are not written by websocket/frames.py: what it gets wrong would look right to its own readers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Protocol

from policyserve.core.messages import EncodedText
from policyserve.websocket.frames import FrameEvent
from policyserve.websocket.server_frames import FrameReader

MASK = b"\x01\x02\x03\x04"


class Reader(Protocol):
    """Either half's FrameReader."""

    def get_buffer(self) -> memoryview: ...
    def advance(self, count: int) -> Sequence[FrameEvent | EncodedText]: ...


def write(to: Reader, data: bytes, cuts: Iterator[int] | None = None) -> list[FrameEvent | EncodedText]:
    """Hand bytes over as a socket does: into get_buffer(), in pieces of the given sizes."""
    events: list[FrameEvent | EncodedText] = []
    while data:
        space = to.get_buffer()
        assert len(space) > 0
        count = min(len(space), len(data), next(cuts, 1 << 30) if cuts else 1 << 30)
        space[:count] = data[:count]
        del space
        events += to.advance(count)
        events += read_on(to)
        data = data[count:]
    return events


def read_on(to: Reader) -> list[FrameEvent | EncodedText]:
    """What the turns to come bring, of what a server's reader has left for them."""
    events: list[FrameEvent | EncodedText] = []
    while isinstance(to, FrameReader) and to.has_more:
        events += to.go_on()
    return events


def frame(opcode: int, payload: bytes, is_final: bool = True, mask: bytes = b"") -> bytes:
    """A server's frame, or a client's, which has a mask of four bytes."""
    size, is_masked = len(payload), 0x80 if mask else 0
    head = bytes([(0x80 if is_final else 0) | opcode])
    if size < 126:
        head += bytes([is_masked | size])
    elif size < 1 << 16:
        head += struct.pack(">BH", is_masked | 126, size)
    else:
        head += struct.pack(">BQ", is_masked | 127, size)
    return head + mask + (bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if mask else payload)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that show where they came from."""
    return bytes((index * 7 + seed) % 251 for index in range(size))


def plain(event: FrameEvent | EncodedText) -> object:
    """An event to compare: a message's own value, the rest as it is."""
    if isinstance(event, EncodedText):
        return event.text()
    return bytes(event) if isinstance(event, memoryview) else event
