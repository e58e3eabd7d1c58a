"""WebSocket frames, both sides: the same messages, pongs and ends as in websockets' sans-I/O protocol, however cut."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from policyserve.core.messages import EncodedText
from policyserve.websocket import client_frames as client_side
from policyserve.websocket import server_frames as server_side
from policyserve.websocket.frames import PeerClose, Violation
from tests.fuzz.choices import Choices

LIMIT = 200_000
_SIZES = (0, 1, 5, 125, 126, 127, 300, 65_535, 65_536, 65_537, 70_000, 70_001, 199_999, 200_000, 200_001)
_OPCODES = (2, 2, 2, 2, 1, 0, 0, 8, 9, 10, 3, 11)
_BESIDE_A_MESSAGE = re.compile(r"frame with \d{1,3} bytes after reading")
_PROTOCOL_ERROR, _BAD_TEXT, _TOO_BIG = 1002, 1007, 1009


def check_server(data: bytes) -> None:
    """What clients may send to the server's reader."""
    choices = Choices(data)
    stream = _stream(choices, is_masked=True)
    pieces = choices.pieces(stream)
    reader = server_side.FrameReader(LIMIT, server_side.make_scratch())
    theirs = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    theirs.receive_data(stream)
    events = [event for piece in _told_of_all_headers(pieces, theirs) for event in _write(reader, piece)]
    _compare(_told(events, (PeerClose, Violation)), theirs)


def check_client(data: bytes) -> None:
    """What servers may send to the client's reader."""
    choices = Choices(data)
    stream = _stream(choices, is_masked=False)
    pieces = choices.pieces(stream)
    reader = client_side.FrameReader(LIMIT)
    theirs = ClientProtocol(parse_uri("ws://fuzz/"), state=State.OPEN, max_size=LIMIT)
    theirs.receive_data(stream)
    events = [event for piece in pieces for event in reader.feed(piece)]
    _compare(_told(events, (PeerClose, Violation)), theirs)


def check_writer(data: bytes) -> None:
    """What the client's writer makes of a message is what the server's reader reads."""
    choices = Choices(data)
    writer = client_side.FrameWriter(
        lambda count: bytes(count * [7, 11]) if choices.chance(2) else bytes(range(256)) * 4
    )
    reader = server_side.FrameReader(1 << 21, server_side.make_scratch())
    for _ in range(1 + choices.number(3)):
        message = [_pattern(choices.pick((*_SIZES, 300_000)), choices.number(255)) for _ in range(choices.number(4))]
        # A window may be overwritten when the next one is asked for.
        (read,) = [event for window in writer.windows(2, message) for event in _write(reader, bytes(window))]
        assert isinstance(read, memoryview)
        assert read == b"".join(message)


def _write(reader: server_side.FrameReader, piece: bytes) -> list[object]:
    """Hand bytes over as a socket does."""
    events: list[object] = []
    while piece:
        space = reader.get_buffer()
        count = min(len(space), len(piece))
        space[:count] = piece[:count]
        del space
        events += reader.advance(count)
        while reader.has_more:
            events += reader.go_on()
        piece = piece[count:]
    return events


def _told_of_all_headers(pieces: list[bytes], theirs: Protocol) -> list[bytes]:
    """The pieces, and behind them a mask's key if they looked at the size of a frame whose header is not whole."""
    return [*pieces, bytes(4)] if theirs.close_sent is not None else pieces


def _stream(choices: Choices, is_masked: bool) -> bytes:
    if choices.chance(8):
        return choices.rest()
    stream = b""
    for _ in range(1 + choices.number(6)):
        payload = _payload(choices)
        key = choices.pick((bytes(4), b"\x01\x02\x03\x04", choices.bytes(4).ljust(4, b"\xff")))
        stream += _frame(choices, payload, key, is_masked != choices.chance(30))
    return choices.scribbled(stream) if choices.chance(4) else stream


def _payload(choices: Choices) -> bytes:
    kind = choices.number(3)
    if kind == 0:
        return choices.some_bytes(20)
    if kind == 1:
        return struct.pack(">H", choices.pick((1000, 1001, 1005, 1006, 1011, 1015, 2999, 3000, 4999, 5000))) + b"why"
    return _pattern(choices.pick(_SIZES), choices.number(255))


def _pattern(size: int, seed: int) -> bytes:
    return bytes((seed + place) % 128 for place in range(257)) * (size // 257) + bytes([seed % 128]) * (size % 257)


def _frame(choices: Choices, payload: bytes, key: bytes, is_masked: bool) -> bytes:
    first = choices.pick(_OPCODES) | (0 if choices.chance(3) else 0x80)
    if choices.chance(20):
        first |= choices.pick((0x10, 0x20, 0x40))
    size = choices.pick((0, 1, 1 << 20, (1 << 63) - 1, (1 << 64) - 1)) if choices.chance(20) else len(payload)
    mask_bit = 0x80 if is_masked else 0
    if size < 126:
        head = bytes([first, mask_bit | size])
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, mask_bit | 127, size)
    if not is_masked:
        return head + payload
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return head + key + masked.to_bytes(len(payload), "little")


def _told(events: Sequence[object], ends: tuple[type, type]) -> tuple[list[object], tuple[str, int] | None]:
    """What a reader of ours told: messages and pings, and how it ended: by whom, and the code."""
    told: list[object] = []
    end: tuple[str, int] | None = None
    close, violation = ends
    for event in events:
        assert end is None, f"{event} after the end"
        if isinstance(event, (close, violation)):
            end = ("closed" if isinstance(event, close) else "violated", event.code)  # type: ignore[attr-defined]
        elif type(event).__name__ == "Ping":
            told.append(("ping", event.payload))  # type: ignore[attr-defined]
        elif type(event).__name__ != "Pong":
            told.append(_plain(getattr(event, "payload", event)))
    return told, end


def _plain(message: object) -> object:
    if isinstance(message, EncodedText):
        return message.text()
    return bytes(message) if isinstance(message, memoryview) else message


def _compare(ours: tuple[list[object], tuple[str, int] | None], theirs: Protocol) -> None:
    told, end = ours
    expected, is_text_bad = _assembled(theirs.events_received())
    if theirs.close_sent is not None and _BESIDE_A_MESSAGE.search(theirs.close_sent.reason):
        assert told[: len(expected)] == expected  # it counts a control frame as part of the message around it
        return
    assert told == expected
    if is_text_bad:  # it leaves a text's bytes to whoever reads it, and goes on
        assert end == ("violated", _BAD_TEXT)
    elif end is None:
        assert theirs.state is State.OPEN
    elif end[0] == "closed":
        assert theirs.close_rcvd is not None
        assert theirs.close_rcvd.code == end[1]
    else:
        if theirs.close_sent is None:  # we look at a header before its payload is there
            theirs.receive_data(bytes(LIMIT + 14))
        assert theirs.close_sent is not None
        # A frame may be wrong in two ways: it looks at its size first, we at the rest of its header.
        assert theirs.close_sent.code == end[1] or (theirs.close_sent.code, end[1]) == (_TOO_BIG, _PROTOCOL_ERROR)


def _assembled(events: Sequence[object]) -> tuple[list[object], bool]:
    """Whole messages and pings out of websockets' frames, up to a text that is not UTF-8."""
    whole: list[object] = []
    parts: list[bytes] = []
    is_text = False
    for event in events:
        assert isinstance(event, Frame)
        if event.opcode is Opcode.PING:
            whole.append(("ping", bytes(event.data)))
        if event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            continue
        is_text = event.opcode is Opcode.TEXT if event.opcode is not Opcode.CONT else is_text
        parts.append(bytes(event.data))
        if event.fin:
            joined, parts = b"".join(parts), []
            try:
                whole.append(joined.decode() if is_text else joined)
            except UnicodeDecodeError:
                return whole, True
    return whole, False
