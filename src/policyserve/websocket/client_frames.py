"""WebSocket frames (RFC 6455) on the client's side, after the handshake. Pure: no socket, no clock.

What must stay true: a message's buffer is its own, and no view of it is kept here once the message is handed out; a
server that breaks the protocol gets no further than its first mistake; a key is never used twice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.messages import EncodedText, Part
from policyserve.websocket.buffers import allocate
from policyserve.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASKED,
    Assembler,
    Filling,
    FrameEvent,
    frame_header,
    masked,
)

_SCRATCH_BYTES = 1 << 14
_WINDOW_BYTES = 1 << 19  # a part of a frame that stays in the processor's cache from the mask to the socket
_MASK_BYTES = 1 << 15  # of the repeated key: it is written for each frame, and stays in the nearest cache
_MASKED_AT_ONCE = 256  # bytes, up to which one big integer is quicker than NumPy
_KEYS = 256  # drawn at a time
_NO_KEY = bytes(4)
_JOINED = 4096  # bytes, up to which one copy is quicker than several pieces
_WHOLE_BINARY = 0x80 | BINARY  # the first byte of a message in one frame


class FrameReader:
    """Reads a server's frames. Bytes are written where get_buffer() says; advance() says what came of them."""

    def __init__(self, max_message_bytes: int) -> None:
        self._assembler = Assembler(max_message_bytes, is_masked=False)
        self._max_bytes = max_message_bytes
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._held = 0  # bytes at the scratch's beginning: a frame whose header, or short payload, is not whole yet
        self._filling: Filling | None = None

    def get_buffer(self) -> memoryview:
        """Where the next bytes go: into the message that is being filled, else into the scratch."""
        filling = self._filling
        return self._scratch[self._held :] if filling is None else filling.payload[filling.filled :]

    @property
    def is_within_message(self) -> bool:
        """Whether a part of a message has come, be it a part of its header, and not all of it."""
        if self._filling is not None or self._assembler.opcode != CONTINUATION:
            return True
        return self._held > 0 and self._scratch[0] & 0x0F < CLOSE

    def advance(self, count: int) -> list[FrameEvent]:
        """`count` bytes were written into get_buffer()'s view: what they bring about."""
        filling = self._filling
        if filling is None and not self._held:
            message = self._message_alone(count)
            if message is not None:
                return [message]
        events: list[FrameEvent] = []
        if self._assembler.is_over:
            return events
        if filling is None:
            self._read_scratch(self._held + count, events)
            return events
        filling.filled += count
        if filling.filled == filling.size:
            self._filling = None
            self._end_frame(filling.opcode, filling.is_final, filling.payload, events)
        return events

    def feed(self, data: bytes) -> list[FrameEvent]:
        """Read bytes that came some other way."""
        events: list[FrameEvent] = []
        rest = memoryview(data)
        while rest:
            space = self.get_buffer()
            count = min(len(space), len(rest))
            space[:count] = rest[:count]
            del space  # a message's own view is handed out whole: none must be left here
            events += self.advance(count)
            rest = rest[count:]
        return events

    def _message_alone(self, count: int) -> memoryview | None:
        """The message, if the scratch holds one in one frame and nothing else: as most replies come."""
        data, assembler = self._scratch, self._assembler
        size, header = data[1], 2
        if size == 126:
            size, header = data[2] << 8 | data[3], 4
        elif size > 126:
            return None
        if count != header + size or data[0] != _WHOLE_BINARY or size > self._max_bytes:
            return None
        if assembler.is_over or assembler.opcode != CONTINUATION:
            return None
        return memoryview(bytearray(data[header:count]))

    def _read_scratch(self, end: int, events: list[FrameEvent]) -> None:
        position = 0
        while self._filling is None and not self._assembler.is_over:
            used = self._read_frame(position, end, events)
            if used == 0:
                break
            position += used
        self._held = end - position if self._filling is None and not self._assembler.is_over else 0
        if self._held and position:
            self._scratch[: self._held] = bytes(self._scratch[position:end])

    def _read_frame(self, start: int, end: int, events: list[FrameEvent]) -> int:
        """Read the scratch's frame at `start`; returns the bytes used, 0 if more are needed."""
        data, available = self._scratch, end - start
        if available < 2:
            return 0
        first, size = data[start], data[start + 1]
        opcode, header = first & 0x0F, 2
        problem = self._assembler.check_header(first, size)
        if problem is None and size > 125:
            header = 4 if size == 126 else 10
            if available < header:
                return 0
            (size,) = struct.unpack_from(">H" if size == 126 else ">Q", data, start + 2)
        problem = problem or self._assembler.check_size(opcode, size)
        if problem is not None:
            self._assembler.is_over = True
            events.append(problem)
            return available
        begin = start + header
        if opcode >= CLOSE and available < header + size:
            return 0
        payload = memoryview(allocate(size))
        if available >= header + size:
            payload[:] = data[begin : begin + size]
            self._end_frame(opcode, bool(first & 0x80), payload, events)
            return header + size
        filling = self._filling = Filling(opcode, bool(first & 0x80), payload)
        filling.begin(data[begin:end])
        return available

    def _end_frame(self, opcode: int, is_final: bool, payload: memoryview, events: list[FrameEvent]) -> None:
        if opcode < CLOSE:
            event = self._assembler.end_data(opcode, is_final, payload)
        else:
            event = self._assembler.end_control(opcode, bytes(payload))
        if event is not None:
            events.append(event.text() if isinstance(event, EncodedText) else event)


class FrameWriter:
    """Writes a client's frames, masked, through one small buffer that is used over and over.

    A large frame is masked a window at a time: the window is still in the processor's cache when the socket copies it,
    the server reads the first while the next is masked, and no client keeps a copy of a camera frame.

    random_bytes: where keys come from; None: every key is zero, where no proxy can be confused by what a frame says,
    and nothing is copied.
    """

    def __init__(self, random_bytes: Callable[[int], bytes] | None) -> None:
        self._random_bytes = random_bytes
        self._keys: Iterator[bytes] = iter(())
        self._window: Array = np.empty(0, np.uint8)
        self._mask: Array = np.empty(0, np.uint8)

    def frame(self, opcode: int, payload: bytes) -> bytes:
        """A small frame, a control frame for example."""
        return b"".join(bytes(window) for window in self.windows(opcode, [payload]))

    def windows(self, opcode: int, parts: Sequence[Part]) -> Iterable[Part]:
        """One frame of all parts, in pieces.

        A list of the parts themselves, for one system call, or one piece after the other, each of which may be
        overwritten when the next one is asked for.
        """
        size = sum(map(len, parts))
        if self._random_bytes is None:
            pieces = [frame_header(opcode, size, MASKED) + _NO_KEY, *parts]
            return pieces if size > _JOINED else (b"".join(pieces),)
        key = self._next_key(self._random_bytes)
        header = frame_header(opcode, size, MASKED) + key
        if size <= _MASKED_AT_ONCE:
            return (header + masked(b"".join(parts), key),)
        return self._masked_windows(header, key, size, parts)

    def _masked_windows(self, header: bytes, key: bytes, size: int, parts: Sequence[Part]) -> Iterator[memoryview]:
        self._reserve(min(len(header) + size, _WINDOW_BYTES), key)
        window, view = self._window, self._window.data
        limit, filled, phase = len(window), len(header), 0
        view[:filled] = header
        for part in parts:
            source = np.frombuffer(part, np.uint8)
            while len(source):
                count = min(len(source), limit - filled)
                piece, source = source[:count], source[count:]
                _mask_into(window[filled : filled + count], piece, self._mask[phase:])
                filled, phase = filled + count, (phase + count) & 3
                if filled == limit:
                    yield view
                    filled = 0
        if filled:
            yield view[:filled]

    def _reserve(self, size: int, key: bytes) -> None:
        """Have a window of `size` bytes or more, and beside it the repeated key, a row of what is masked at once."""
        if len(self._window) < size:
            rounded = 1 << (size - 1).bit_length()
            self._window = np.empty(rounded, np.uint8)
            self._mask = np.empty(min(rounded, _MASK_BYTES) + 4, np.uint8)
        words = self._mask.view(np.uint32)
        words[: size // 4 + 2] = np.frombuffer(key, np.uint32)[0]

    def _next_key(self, random_bytes: Callable[[int], bytes]) -> bytes:
        key = next(self._keys, None)
        if key is None:
            drawn = random_bytes(4 * _KEYS)
            self._keys = iter([drawn[start : start + 4] for start in range(0, len(drawn), 4)])
            key = next(self._keys)
        return key


def _mask_into(target: Array, source: Array, mask: Array) -> None:
    """Write `source` XORed with the mask, row by row of _MASK_BYTES, into `target`."""
    whole = len(source) // _MASK_BYTES * _MASK_BYTES
    if whole:
        rows = source[:whole].reshape(-1, _MASK_BYTES), mask[:_MASK_BYTES]
        np.bitwise_xor(*rows, out=target[:whole].reshape(-1, _MASK_BYTES))
    if whole < len(source):
        np.bitwise_xor(source[whole:], mask[: len(source) - whole], out=target[whole:])
