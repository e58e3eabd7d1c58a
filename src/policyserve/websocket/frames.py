"""WebSocket frames (RFC 6455): the rules that clients and servers share. Pure: no socket, no clock.

Each side reads frames in its own way: server_frames.py writes bytes straight into large messages, client_frames.py
does not need to.
"""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass
from typing import TypeAlias

from policyserve.core.messages import EncodedText

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
PROTOCOL_ERROR, BAD_TEXT, TOO_BIG, NO_CODE = 1002, 1007, 1009, 1005
MASKED = 0x80  # the bit in a frame's second byte
_FINAL = 0x80  # the bit in its first
_OPCODES = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
_pack_medium, _pack_long = struct.Struct(">BBH").pack, struct.Struct(">BBQ").pack
_CHECKED_AT_ONCE = 1 << 16  # bytes of a text: what is decoded to check it takes four times as much
_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015)}  # of those below 3000


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered by a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

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


# What a client is told: a whole message is the str of a text one, else a writable view of a buffer of its own.
FrameEvent: TypeAlias = memoryview | str | Ping | Pong | PeerClose | Violation


class Assembler:
    """Makes messages of one peer's frames, until it closes or breaks the rules; a reader has found them in its bytes.

    is_masked: whether the peer's frames must be, which a client's must and a server's must not.
    """

    def __init__(self, max_message_bytes: int, is_masked: bool) -> None:
        self.is_over = False
        self.opcode = CONTINUATION  # of the message whose fragments come; CONTINUATION: none
        self.fragments: bytearray | None = None  # of that message, joined: a list would grow with empty ones
        self._max_bytes = max_message_bytes
        self._mask_bit = MASKED if is_masked else 0

    def check_header(self, first: int, second: int) -> Violation | None:
        """What a frame's first two bytes break."""
        opcode = first & 0x0F
        if first & 0x70:
            return Violation(PROTOCOL_ERROR, "reserved bits are set, and no extension was agreed on")
        if opcode not in _OPCODES:
            return Violation(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if second & MASKED != self._mask_bit:
            what = "a client's frames must be masked" if self._mask_bit else "a server's frames must not be masked"
            return Violation(PROTOCOL_ERROR, what)
        if opcode >= CLOSE:
            if second & 0x7F > 125 or not first & _FINAL:
                return Violation(PROTOCOL_ERROR, "a control frame that is fragmented or longer than 125 bytes")
        elif (opcode == CONTINUATION) == (self.opcode == CONTINUATION):
            what = "a continuation of nothing" if opcode == CONTINUATION else "a new message inside another"
            return Violation(PROTOCOL_ERROR, what)
        return None

    def check_size(self, opcode: int, size: int) -> Violation | None:
        """Whether a frame makes its message too long."""
        if opcode < CLOSE and size + len(self.fragments or b"") > self._max_bytes:
            return Violation(TOO_BIG, f"a message of more than {self._max_bytes} bytes")
        return None

    def end_data(self, opcode: int, is_final: bool, payload: memoryview) -> memoryview | EncodedText | Violation | None:
        """A data frame whose header is fine is whole, its mask taken off; None: its message is not whole yet."""
        if opcode != CONTINUATION:
            self.opcode = opcode
        if not is_final or self.fragments is not None:
            self.fragments = self.fragments or bytearray()
            self.fragments += payload
            if not is_final:
                return None
            payload, self.fragments = memoryview(self.fragments), None
        opcode, self.opcode = self.opcode, CONTINUATION
        if opcode == BINARY:
            return payload
        if _is_utf8(payload):
            return EncodedText(payload)
        self.is_over = True
        return Violation(BAD_TEXT, "a text message that is not UTF-8")

    def end_control(self, opcode: int, payload: bytes) -> Ping | Pong | PeerClose | Violation:
        """A control frame whose header is fine is whole, its mask taken off."""
        if opcode != CLOSE:
            return Ping(payload) if opcode == PING else Pong(payload)
        self.is_over = True
        if not payload:
            return PeerClose(NO_CODE, "")
        code = int.from_bytes(payload[:2], "big")
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            return Violation(BAD_TEXT, "a close reason that is not UTF-8")
        if len(payload) == 1 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
            return Violation(PROTOCOL_ERROR, "a close frame without a valid code")
        return PeerClose(code, reason)


class Filling:
    """A data frame whose payload is being written into a buffer of its own."""

    __slots__ = ("filled", "is_final", "key", "opcode", "payload", "size")

    def __init__(self, opcode: int, is_final: bool, payload: memoryview, key: bytes = b"") -> None:
        self.opcode = opcode
        self.is_final = is_final
        self.payload = payload
        self.key = key  # of the mask
        self.size = len(payload)
        self.filled = 0

    def begin(self, data: memoryview | bytes) -> None:
        """Write the part of the payload that has come already."""
        self.filled = len(data)
        self.payload[: self.filled] = data


def _is_utf8(data: memoryview) -> bool:
    position, size = 0, len(data)
    try:
        while position < size:
            end = position + _CHECKED_AT_ONCE
            position += codecs.utf_8_decode(data[position:end], "strict", end >= size)[1]
    except UnicodeDecodeError:
        return False
    return True


def frame_header(opcode: int, size: int, mask_bit: int = 0) -> bytes:
    """The header of an unfragmented frame, without a mask's key; mask_bit: MASKED for a client's."""
    if size < 126:
        return bytes((_FINAL | opcode, mask_bit | size))
    if size < 1 << 16:
        return _pack_medium(_FINAL | opcode, mask_bit | 126, size)
    return _pack_long(_FINAL | opcode, mask_bit | 127, size)


def masked(payload: bytes | bytearray | memoryview, key: bytes | bytearray) -> bytes:
    """A short payload XORed with the repeated 4-byte key, as one big integer each: quicker than NumPy."""
    size = len(payload)
    repeated = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def close_payload(code: int, reason: str) -> bytes:
    """A close frame's payload; empty for NO_CODE."""
    return b"" if code == NO_CODE else struct.pack(">H", code) + reason.encode()[:123]
