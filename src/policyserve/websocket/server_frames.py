"""WebSocket frames (RFC 6455) on the server's side, after the handshake. Pure: no socket, no clock.

Bytes are written straight into the message that they belong to: get_buffer() says where, advance() what came of it.

What must stay true: a message's buffer is its own, and no view of it is kept here once the message is handed out; a
peer that breaks the protocol gets no further than its first mistake.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from policyserve.core.callbacks import do_nothing
from policyserve.core.messages import EncodedText
from policyserve.websocket.buffers import allocate
from policyserve.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASKED,
    Assembler,
    Filling,
    PeerClose,
    Ping,
    Pong,
    Violation,
    masked,
)

_SCRATCH_BYTES = 1 << 16
_WHOLE_BINARY = 0x80 | BINARY  # a frame's first byte
_MOST_AT_ONCE = 1 << 19  # bytes of one read: a peer with much to send shall not hold up the others
_MOST_FRAMES = 8  # of one turn, for the same reason: a read may hold ten thousand
_SMALL = 64  # bytes; a fragment with fewer is none of a sensible client
_MASK_IN_PLACE = 128  # bytes, from which NumPy is quicker than one big integer

# A whole binary message is a writable view of a buffer of its own; of a text one the bytes are kept.
PeerEvent: TypeAlias = memoryview | EncodedText | Ping | PeerClose | Violation


class FrameReader:
    """Reads one peer's frames. scratch: where bytes land that belong to no message yet.

    Readers may share a scratch if each advance() comes before another's get_buffer(), as in an event loop.
    """

    def __init__(self, max_message_bytes: int, scratch: bytearray) -> None:
        self._max_bytes = max_message_bytes
        self._assembler = Assembler(max_message_bytes, is_masked=True)
        self._scratch = scratch
        self._rest = b""  # what came and is not read yet: frames for turns to come, or the beginning of one
        self._rest_at = 0  # where in it the next frame begins
        self.has_more = False  # whole frames may be among the rest: call go_on() in a later turn
        self.idle_frames = 0  # so far, those that bring no message: controls, and fragments too small to be sensible
        self._filling: Filling | None = None
        self.on_growth: Callable[[int], object] = do_nothing  # told of bytes that are kept for a message to be whole

    def get_buffer(self) -> memoryview:
        """Where the next bytes go: into the message that is being filled, or into the scratch."""
        if self._filling is None:
            return memoryview(self._scratch)
        filled = self._filling.filled
        return self._filling.payload[filled : filled + _MOST_AT_ONCE]

    def advance(self, count: int) -> Sequence[PeerEvent]:
        """`count` bytes were written into get_buffer()'s view: what they bring about, of a few frames at most."""
        if self._assembler.is_over:
            return ()
        if self._filling is not None:
            return self._fill(self._filling, count)
        message = self._whole_message(count)
        return self.feed(memoryview(self._scratch)[:count]) if message is None else (message,)

    def _fill(self, filling: Filling, count: int) -> Sequence[PeerEvent]:
        filling.filled += count
        self.on_growth(count)
        if self._assembler.is_over or filling.filled < filling.size:  # over: given up, for want of room
            return ()
        self._filling = None
        unmask(filling.payload, filling.key)
        event = self._assembler.end_data(filling.opcode, filling.is_final, filling.payload)
        return () if event is None else (event,)

    @property
    def is_mid_message(self) -> bool:
        """Whether a message or a frame has begun and is not whole yet."""
        return bool(self._rest) or self._filling is not None or self._assembler.fragments is not None

    def abandon(self) -> None:
        """Read nothing more, and free what has arrived of an unfinished message."""
        self._filling = self._assembler.fragments = None
        self._rest, self._rest_at, self.has_more = b"", 0, False
        self._assembler.is_over = True

    def _whole_message(self, count: int) -> memoryview | None:
        """The message, if the scratch holds one whole binary frame and nothing else, as for most small messages."""
        scratch = self._scratch
        if count < 6 or scratch[0] != _WHOLE_BINARY or self._rest or self._assembler.opcode != CONTINUATION:
            return None
        size, begin = scratch[1] - MASKED, 6
        if size == 126:
            size, begin = scratch[2] << 8 | scratch[3], 8
        elif size == 127:
            return None
        if count != begin + size or size > self._max_bytes:  # never equal without the mask's bit
            return None
        if size < _MASK_IN_PLACE:
            return memoryview(bytearray(masked(scratch[begin:count], scratch[begin - 4 : begin])))
        payload = memoryview(scratch[begin:count])
        unmask(payload, bytes(scratch[begin - 4 : begin]))
        return payload

    def feed(self, data: memoryview | bytes) -> list[PeerEvent]:
        """Read bytes that came some other way, as advance() does; `data` is not kept."""
        if self._rest:
            data = self._rest[self._rest_at :] + bytes(data)
            self._rest, self._rest_at = b"", 0
        return self._read_frames(data, 0)

    def go_on(self) -> list[PeerEvent]:
        """Read the next few frames of those that came before, while it `has_more`."""
        return self._read_frames(self._rest, self._rest_at)

    def _read_frames(self, data: memoryview | bytes, position: int) -> list[PeerEvent]:
        """Read a few frames from `position` on, and keep the rest."""
        events: list[PeerEvent] = []
        self.has_more = True
        for _ in range(_MOST_FRAMES):
            used = self._read_frame(data, position, events)
            position += used
            self.has_more = used > 0 and position < len(data) and not self._assembler.is_over
            if not self.has_more:
                break
        if self._assembler.is_over or position == len(data):
            self._rest, self._rest_at = b"", 0
        elif data is self._rest:
            self._rest_at = position
        else:
            self._rest, self._rest_at = bytes(data[position:]), 0
        return events

    def _read_frame(self, data: memoryview | bytes, start: int, events: list[PeerEvent]) -> int:
        """Read the frame at `start`; returns the bytes used, 0 if more are needed."""
        available = len(data) - start
        if available < 2:
            return 0
        first, second = data[start], data[start + 1]
        opcode, size, header = first & 0x0F, second & 0x7F, 6
        if size == 126:
            header = 8
        elif size == 127:
            header = 14
        problem = self._assembler.check_header(first, second)
        if problem is None:
            if available < header:
                return 0
            if size > 125:
                (size,) = struct.unpack_from(">H" if size == 126 else ">Q", data, start + 2)
            problem = self._assembler.check_size(opcode, size)
        if problem is not None:
            self._assembler.is_over = True
            events.append(problem)
            return available
        if opcode >= CLOSE or (not first & 0x80 and size < _SMALL):
            self.idle_frames += 1
        key = bytes(data[start + header - 4 : start + header])
        begin = start + header
        if available >= header + size:
            payload = memoryview(allocate(size))
            payload[:] = data[begin : begin + size]
            if opcode < CLOSE and (not first & 0x80 or self._assembler.fragments is not None):
                self.on_growth(size)
            unmask(payload, key)
            if opcode < CLOSE:
                event = self._assembler.end_data(opcode, bool(first & 0x80), payload)
            else:
                event = self._assembler.end_control(opcode, bytes(payload))
            if event is not None and not isinstance(event, Pong):  # nobody waits for one
                events.append(event)
            return header + size
        if opcode >= CLOSE:
            return 0
        payload = memoryview(allocate(size))
        filling = self._filling = Filling(opcode, bool(first & 0x80), payload, key)
        filling.begin(data[begin:])
        self.on_growth(available - header)
        return available


def unmask(payload: memoryview, mask: bytes) -> None:
    """XOR the payload with the repeated 4-byte mask, in place."""
    size = len(payload)
    if mask == b"\0\0\0\0" or not size:
        return
    if size < _MASK_IN_PLACE:
        payload[:] = masked(payload, mask)
        return
    whole = size & ~7
    words = np.frombuffer(payload[:whole], np.uint64)
    np.bitwise_xor(words, np.frombuffer(mask * 2, np.uint64), out=words)
    if whole < size:
        tail = payload[whole:]
        tail[:] = bytes(byte ^ mask[index & 3] for index, byte in enumerate(tail))


def make_scratch() -> bytearray:
    """A scratch for FrameReader."""
    return bytearray(_SCRATCH_BYTES)
