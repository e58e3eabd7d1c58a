"""WebSocket frames (RFC 6455) on the server's side, after the handshake. Pure: no socket, no clock.

Bytes are written straight into the message that they belong to: get_buffer() says where, advance() what came of it.

What must stay true: a message's buffer is its own, and no view of it is kept here once the message is handed out; a
peer that breaks the protocol gets no further than its first mistake.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from policyserve.core.buffers import BufferPool

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
PROTOCOL_ERROR, BAD_TEXT, TOO_BIG, NO_CODE = 1002, 1007, 1009, 1005
_SCRATCH_BYTES = 1 << 16
_WHOLE_BINARY = 0x80 | BINARY  # a frame's first byte
_MASKED = 0x80  # in its second
_LONG = _MASKED | 127  # its second, if 64 bits of size follow
_LONGEST_HEADER = 14
_LANDED = 16  # where the payload stands in a buffer that takes its header, too: aligned for any dtype
_MOST_AT_ONCE = 1 << 19  # bytes of one read: a peer with much to send shall not hold up the others
_LARGE = 1 << 16  # bytes, from which a frame has the longest header
_MASK_IN_PLACE = 128  # bytes, from which NumPy is quicker than one big integer
_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015)}  # of those below 3000


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered by a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerClose:
    """The peer closes. code: NO_CODE if it gave none."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol: close with this code. Nothing it sends is read any more."""

    code: int
    reason: str


# A whole message is the str of a text one, else a writable view of a buffer of its own.
FrameEvent: TypeAlias = memoryview | str | Ping | PeerClose | Violation


class FrameReader:
    """Reads one peer's frames.

    Readers may share scratch and pool if each advance() comes before another's get_buffer(), as in an event loop.
    """

    def __init__(self, max_message_bytes: int, pool: BufferPool, scratch: bytearray) -> None:
        self._max_bytes = max_message_bytes
        self._pool = pool
        self._scratch = scratch
        self._rest = b""  # the beginning of a frame whose header, or short payload, is not whole yet
        self._filling: _Filling | None = None
        self._fragments: bytearray | None = None  # of a message, joined: a list would grow with empty ones
        self._opcode = CONTINUATION  # of the message whose fragments come; CONTINUATION: none
        self._is_over = False
        self._likely_size = 0  # of the next message, if the last one was large
        self._is_landing = False  # that one's first bytes are about to go into the buffer that the pool has lent
        self.on_growth: Callable[[int], object] = int  # told of bytes that are kept for a message to be whole

    def get_buffer(self) -> memoryview:
        """Where the next bytes go: into the message that is being filled, or that is likely to come, or the scratch."""
        if self._filling is not None:
            return self._filling.space()
        self._is_landing = self._likely_size > 0 and not self._rest
        if not self._is_landing:
            return memoryview(self._scratch)
        begin = _LANDED - _LONGEST_HEADER
        return memoryview(self._pool.lend(_LANDED + self._likely_size))[begin : begin + _MOST_AT_ONCE]

    def advance(self, count: int) -> Sequence[FrameEvent]:
        """`count` bytes were written into get_buffer()'s view: what they bring about."""
        if self._is_over:
            return ()
        if self._filling is not None:
            return self._fill(self._filling, count)
        if self._is_landing:
            return self._land(memoryview(self._pool.lent), count)
        message = self._whole_message(count)
        return self.feed(memoryview(self._scratch)[:count]) if message is None else (message,)

    def _fill(self, filling: _Filling, count: int) -> Sequence[FrameEvent]:
        filling.filled += count
        self.on_growth(count)
        if self._is_over or filling.filled < filling.size:  # over: given up, for want of room
            return ()
        self._filling = None
        return self._end_frame(filling.opcode, filling.is_final, filling.payload, filling.mask)

    def _land(self, landing: memoryview, count: int) -> Sequence[FrameEvent]:
        """After a large message another is likely: its first bytes are where it will stand, behind its header."""
        self._is_landing = False
        came = landing[_LANDED - _LONGEST_HEADER :][:count]
        if count >= _LONGEST_HEADER and came[0] == _WHOLE_BINARY and came[1] == _LONG and self._opcode == CONTINUATION:
            (size,) = struct.unpack_from(">Q", came, 2)
            if count - _LONGEST_HEADER <= size <= min(len(landing) - _LANDED, self._max_bytes):
                payload = landing[_LANDED : _LANDED + size]
                filling = self._filling = _Filling(BINARY, True, bytes(came[10:_LONGEST_HEADER]), payload)
                return self._fill(filling, count - _LONGEST_HEADER)
        self._likely_size = 0
        return self.feed(came)

    @property
    def is_mid_message(self) -> bool:
        """Whether something has begun and is not whole yet."""
        return bool(self._rest) or self._filling is not None or self._fragments is not None

    def abandon(self) -> None:
        """Read nothing any more, and keep nothing of what has begun."""
        self._filling = self._fragments = None
        self._rest = b""
        self._is_over = True

    def _whole_message(self, count: int) -> memoryview | None:
        """What small messages nearly always are: one whole binary frame, and nothing else, in the scratch."""
        scratch = self._scratch
        if count < 6 or scratch[0] != _WHOLE_BINARY or self._rest or self._opcode != CONTINUATION:
            return None
        size, begin = scratch[1] - _MASKED, 6
        if size == 126:
            size, begin = scratch[2] << 8 | scratch[3], 8
        elif size == 127:
            return None
        if count != begin + size or size > self._max_bytes:  # never equal without the mask's bit
            return None
        payload = memoryview(scratch[begin:count])
        unmask(payload, bytes(scratch[begin - 4 : begin]))
        return payload

    def feed(self, data: memoryview | bytes) -> list[FrameEvent]:
        """Read bytes that came some other way; `data` is not kept."""
        if self._rest:
            data, self._rest = self._rest + bytes(data), b""
        events: list[FrameEvent] = []
        position = 0
        while not self._is_over and self._filling is None:
            used = self._read_frame(data, position, events)
            if used == 0:
                self._rest = bytes(data[position:])
                break
            position += used
        return events

    def _read_frame(self, data: memoryview | bytes, start: int, events: list[FrameEvent]) -> int:
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
        problem = self._check_header(first, second, opcode, size)
        if problem is None:
            if available < header:
                return 0
            if size > 125:
                (size,) = struct.unpack_from(">H" if size == 126 else ">Q", data, start + 2)
            if opcode < CLOSE and size + len(self._fragments or b"") > self._max_bytes:
                problem = Violation(TOO_BIG, f"a message of more than {self._max_bytes} bytes")
        if problem is not None:
            self._is_over = True
            events.append(problem)
            return available
        mask = bytes(data[start + header - 4 : start + header])
        begin = start + header
        if available >= header + size:
            payload = memoryview(self._pool.take(size))[:size]
            payload[:] = data[begin : begin + size]
            if opcode < CLOSE and (not first & 0x80 or self._fragments is not None):
                self.on_growth(size)
            events += self._end_frame(opcode, bool(first & 0x80), payload, mask)
            return header + size
        if opcode >= CLOSE:
            return 0
        payload = memoryview(self._pool.take(size))[:size]
        filling = self._filling = _Filling(opcode, bool(first & 0x80), mask, payload)
        filling.begin(data[begin:])
        self._likely_size = size if size >= _LARGE else 0
        self.on_growth(available - header)
        return available

    def _check_header(self, first: int, second: int, opcode: int, size: int) -> Violation | None:
        if first & 0x70:
            return Violation(PROTOCOL_ERROR, "reserved bits are set, and no extension was agreed on")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            return Violation(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if not second & 0x80:
            return Violation(PROTOCOL_ERROR, "a client's frames must be masked")
        if opcode >= CLOSE:
            if size > 125 or not first & 0x80:
                return Violation(PROTOCOL_ERROR, "a control frame that is fragmented or longer than 125 bytes")
        elif (opcode == CONTINUATION) == (self._opcode == CONTINUATION):
            what = "a continuation of nothing" if opcode == CONTINUATION else "a new message inside another"
            return Violation(PROTOCOL_ERROR, what)
        return None

    def _end_frame(self, opcode: int, is_final: bool, payload: memoryview, mask: bytes) -> list[FrameEvent]:
        unmask(payload, mask)
        if opcode >= CLOSE:
            return self._end_control(opcode, bytes(payload))
        if opcode != CONTINUATION:
            self._opcode = opcode
        if not is_final or self._fragments is not None:
            self._fragments = self._fragments or bytearray()
            self._fragments += payload
            if not is_final:
                return []
            payload, self._fragments = memoryview(self._fragments), None
        opcode, self._opcode = self._opcode, CONTINUATION
        if opcode == BINARY:
            return [payload]
        try:
            return [str(payload, "utf-8")]
        except UnicodeDecodeError:
            self._is_over = True
            return [Violation(BAD_TEXT, "a text message that is not UTF-8")]

    def _end_control(self, opcode: int, payload: bytes) -> list[FrameEvent]:
        if opcode == PONG:
            return []
        if opcode == PING:
            return [Ping(payload)]
        self._is_over = True
        if not payload:
            return [PeerClose(NO_CODE, "")]
        code = int.from_bytes(payload[:2], "big")
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            return [Violation(BAD_TEXT, "a close reason that is not UTF-8")]
        if len(payload) == 1 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
            return [Violation(PROTOCOL_ERROR, "a close frame without a valid code")]
        return [PeerClose(code, reason)]


class _Filling:
    """A data frame whose payload is on its way into its own buffer.

    It holds a view all the time: a buffer that nobody views is the pool's to give to somebody else.
    """

    __slots__ = ("filled", "is_final", "mask", "opcode", "payload", "size")

    def __init__(self, opcode: int, is_final: bool, mask: bytes, payload: memoryview) -> None:
        self.opcode = opcode
        self.is_final = is_final
        self.mask = mask
        self.payload = payload
        self.size = len(payload)
        self.filled = 0

    def begin(self, data: memoryview | bytes) -> None:
        self.filled = len(data)
        self.payload[: self.filled] = data

    def space(self) -> memoryview:
        return self.payload[self.filled : self.filled + _MOST_AT_ONCE]


def unmask(payload: memoryview, mask: bytes) -> None:
    """XOR the payload with the repeated 4-byte mask, in place."""
    size = len(payload)
    if mask == b"\0\0\0\0" or not size:
        return
    if size < _MASK_IN_PLACE:
        repeated = (mask * (size // 4 + 1))[:size]
        number = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
        payload[:] = number.to_bytes(size, "little")
        return
    whole = size & ~7
    words = np.frombuffer(payload[:whole], np.uint64)
    np.bitwise_xor(words, np.frombuffer(mask * 2, np.uint64), out=words)
    if whole < size:
        tail = payload[whole:]
        tail[:] = bytes(byte ^ mask[index & 3] for index, byte in enumerate(tail))


def frame_header(opcode: int, size: int) -> bytes:
    """The header of an unmasked, unfragmented frame, as a server sends them."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 1 << 16:
        return struct.pack(">BBH", 0x80 | opcode, 126, size)
    return struct.pack(">BBQ", 0x80 | opcode, 127, size)


def close_payload(code: int, reason: str) -> bytes:
    """A close frame's payload; empty for NO_CODE."""
    return b"" if code == NO_CODE else struct.pack(">H", code) + reason.encode()[:123]


def make_scratch() -> bytearray:
    """A scratch for FrameReader."""
    return bytearray(_SCRATCH_BYTES)
