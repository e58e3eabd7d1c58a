"""WebSocket frames (RFC 6455) on the server's side, after the handshake. Pure: no socket, no clock.

Bytes are written straight into the message that they belong to: get_buffer() says where, advance() what came of it.

What must stay true: a message's buffer is its own, and no view of it is kept here once the message is handed out; a
peer that breaks the protocol gets no further than its first mistake.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from policyserve.server.buffers import BufferPool

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
PROTOCOL_ERROR, BAD_TEXT, TOO_BIG, NO_CODE = 1002, 1007, 1009, 1005
_SCRATCH_BYTES = 1 << 16
_MASK_IN_PLACE = 128  # bytes, from which NumPy is quicker than one big integer
_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015)}  # of those below 3000


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message. payload: str of a text message, else a writable view of a buffer of its own."""

    payload: memoryview | str


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


FrameEvent: TypeAlias = Message | Ping | PeerClose | Violation


class FrameReader:
    """Reads one peer's frames.

    Readers may share `scratch` if each advance() comes before anybody else's get_buffer(), as in an event loop.
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

    def get_buffer(self) -> memoryview:
        """Where the next bytes go: into the message that is being filled, else into the scratch."""
        if self._filling is not None:
            return self._filling.space()
        return memoryview(self._scratch)

    def advance(self, count: int) -> list[FrameEvent]:
        """`count` bytes were written into get_buffer()'s view: what they bring about."""
        if self._is_over:
            return []
        if self._filling is None:
            return self.feed(memoryview(self._scratch)[:count])
        filling = self._filling
        filling.filled += count
        if filling.filled < filling.size:
            return []
        self._filling = None
        return self._end_frame(filling.opcode, filling.is_final, filling.payload, filling.mask)

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
            events += self._end_frame(opcode, bool(first & 0x80), payload, mask)
            return header + size
        if opcode >= CLOSE:
            return 0
        payload = memoryview(self._pool.take(size))[:size]
        filling = self._filling = _Filling(opcode, bool(first & 0x80), mask, payload)
        filling.begin(data[begin:])
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
            return [Message(payload)]
        try:
            return [Message(str(payload, "utf-8"))]
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
        return self.payload[self.filled :]


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
