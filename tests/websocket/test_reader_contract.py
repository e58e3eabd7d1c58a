"""What the frame readers of both halves promise, against websockets' sans-I/O protocols: one body of tests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from policyserve.core.messages import EncodedText
from policyserve.websocket.client_frames import FrameReader as ClientReader
from policyserve.websocket.frames import (
    BAD_TEXT,
    NO_CODE,
    PROTOCOL_ERROR,
    TOO_BIG,
    FrameEvent,
    PeerClose,
    Ping,
    Pong,
    Violation,
)
from policyserve.websocket.server_frames import FrameReader as ServerReader
from policyserve.websocket.server_frames import make_scratch
from tests.websocket.written_frames import MASK, Reader, frame, pattern, plain, write

LIMIT = 100_000
EDGES = [16_370, 16_384, 65_535, 65_536, 65_537, 70_000, 99_999]
SIZES = st.one_of(st.integers(0, 300), st.sampled_from(EDGES))


@dataclass(frozen=True)
class Side:
    """A reader, and websockets' protocols of its own role and of its peer's."""

    name: str
    reader: Callable[[int], Reader]
    own: Callable[[int | None], Protocol]
    peer: Callable[[int | None], Protocol]
    mask: bytes  # of the frames that it reads
    tells_pongs: bool

    def frame(self, opcode: int, payload: bytes, is_final: bool = True) -> bytes:
        return frame(opcode, payload, is_final, self.mask)


def their_server(limit: int | None) -> Protocol:
    return ServerProtocol(state=State.OPEN, max_size=limit)


def their_client(limit: int | None) -> Protocol:
    return ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=limit)


def server_reader(limit: int) -> Reader:
    return ServerReader(limit, make_scratch())


def client_reader(limit: int) -> Reader:
    return ClientReader(limit)


SIDES = (
    Side("server", server_reader, their_server, their_client, MASK, tells_pongs=False),
    Side("client", client_reader, their_client, their_server, b"", tells_pongs=True),
)
sides = pytest.mark.parametrize("side", SIDES, ids=[side.name for side in SIDES])


@sides
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_websockets_sends_is_read_however_it_is_cut(side: Side, data: st.DataObject) -> None:
    peer, expected = side.peer(None), []
    for number in range(data.draw(st.integers(1, 5))):
        payload = pattern(data.draw(SIZES), number)
        kind = data.draw(st.sampled_from(["binary", "fragments", "ping", "pong", "text"]))
        if kind == "binary":
            peer.send_binary(payload)
            expected.append(payload)
        elif kind == "fragments":
            middle = data.draw(st.integers(0, len(payload)))
            peer.send_binary(payload[:middle], fin=False)
            peer.send_ping(b"between")
            peer.send_continuation(payload[middle:], fin=True)
            expected += [Ping(b"between"), payload]
        elif kind == "text":
            peer.send_text(payload.hex().encode())
            expected.append(payload.hex())
        elif kind == "ping":
            peer.send_ping(payload[:125])
            expected.append(Ping(payload[:125]))
        else:
            peer.send_pong(payload[:125])
            expected += [Pong(payload[:125])] if side.tells_pongs else []
    peer.send_close(1000, "bye")
    sent = b"".join(peer.data_to_send())
    cuts = iter(data.draw(st.lists(st.integers(1, 70_000), max_size=40)))
    events = write(side.reader(LIMIT * 2), sent, cuts)
    assert [plain(event) for event in events] == [*expected, PeerClose(1000, "bye")]


@sides
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_end_as_they_do_in_websockets(side: Side, data: st.DataObject) -> None:
    """Frames of every opcode and flag, valid or not: the same messages, and the same close code where it ends."""
    stream = b""
    for _ in range(data.draw(st.integers(1, 6))):
        opcode = data.draw(st.sampled_from([0, 0, 1, 2, 2, 8, 9, 10, 3]))
        payload = data.draw(st.one_of(st.binary(max_size=20), st.just(b"\x03\xe8ok"), st.just(pattern(200))))
        mask = data.draw(st.binary(min_size=4, max_size=4)) if side.mask else b""
        built = bytearray(frame(opcode, payload, data.draw(st.booleans()), mask))
        if data.draw(st.integers(0, 9)) == 0:
            where, bit = data.draw(st.sampled_from([(0, 0x10), (0, 0x40), (1, 0x80)]))  # reserved bits, and the mask's
            built[where] ^= bit
        stream += built
    theirs = side.own(LIMIT)
    theirs.receive_data(stream)
    events = write(side.reader(LIMIT), stream, iter(data.draw(st.lists(st.integers(1, 50), max_size=20))))
    ended = [event for event in events if isinstance(event, (PeerClose, Violation))]
    assert messages(events) == assembled(theirs.events_received())
    if any(isinstance(event, Violation) and event.code == BAD_TEXT for event in ended):
        return  # websockets' protocol leaves a text's bytes to whoever reads it, and goes on
    if theirs.close_rcvd is not None and not any(isinstance(event, Violation) for event in ended):
        assert ended == [PeerClose(theirs.close_rcvd.code, theirs.close_rcvd.reason)]
    elif theirs.close_sent is not None:
        (violation,) = ended
        assert isinstance(violation, Violation)
        assert violation.code == theirs.close_sent.code
    else:
        assert ended == []


def messages(events: Sequence[FrameEvent | EncodedText]) -> list[bytes]:
    told = [plain(event) for event in events]
    return [one.encode() if isinstance(one, str) else one for one in told if isinstance(one, (str, bytes))]


def assembled(events: Sequence[object]) -> list[bytes]:
    """Whole messages out of websockets' frames; a text that is not UTF-8 is left to whoever reads it there."""
    whole: list[bytes] = []
    parts: list[bytes] = []
    is_text = False
    for event in events:
        if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            is_text = event.opcode is Opcode.TEXT if event.opcode is not Opcode.CONT else is_text
            parts.append(bytes(event.data))
            if event.fin:
                joined, parts = b"".join(parts), []
                if is_text:
                    try:
                        joined.decode()
                    except UnicodeDecodeError:
                        break
                whole.append(joined)
    return whole


BROKEN: dict[str, tuple[Callable[[Side], bytes], int]] = {
    "a reserved bit": (lambda side: bytes([0xC2]) + side.frame(2, b"x")[1:], PROTOCOL_ERROR),
    "an unknown opcode": (lambda side: side.frame(3, b"x"), PROTOCOL_ERROR),
    "a mask of the wrong side": (lambda side: frame(2, b"x", mask=b"" if side.mask else MASK), PROTOCOL_ERROR),
    "a continuation of nothing": (lambda side: side.frame(0, b"x"), PROTOCOL_ERROR),
    "a message inside another": (lambda side: side.frame(2, b"x", False) + side.frame(2, b"y"), PROTOCOL_ERROR),
    "a fragmented ping": (lambda side: side.frame(9, b"x", False), PROTOCOL_ERROR),
    "a ping of 126 bytes": (lambda side: side.frame(9, b"x" * 126), PROTOCOL_ERROR),
    "a close of one byte": (lambda side: side.frame(8, b"x"), PROTOCOL_ERROR),
    "a close code that must not be sent": (lambda side: side.frame(8, struct.pack(">H", 1006)), PROTOCOL_ERROR),
    "a close reason that is no text": (lambda side: side.frame(8, struct.pack(">H", 1000) + b"\xff"), BAD_TEXT),
    "a text that is none": (lambda side: side.frame(1, b"\xff\xfe"), BAD_TEXT),
    "a message beyond the limit": (lambda side: side.frame(2, bytes(LIMIT + 1))[: -LIMIT - 1], TOO_BIG),
    "fragments beyond the limit": (lambda side: side.frame(2, bytes(LIMIT), False) + side.frame(0, b"x"), TOO_BIG),
    "2**63 bytes": (
        lambda side: b"\x82" + struct.pack(">BQ", 0xFF if side.mask else 0x7F, 1 << 63) + side.mask,
        TOO_BIG,
    ),
}


@sides
@pytest.mark.parametrize("kind", BROKEN)
def test_a_peer_that_breaks_the_rules_gets_no_further(side: Side, kind: str) -> None:
    broken, code = BROKEN[kind]
    to = side.reader(LIMIT)
    (violation,) = write(to, broken(side))
    assert isinstance(violation, Violation)
    assert violation.code == code
    assert write(to, side.frame(2, b"more")) == []


@sides
def test_a_message_before_a_broken_frame_is_not_lost(side: Side) -> None:
    first, second = write(side.reader(LIMIT), side.frame(2, b"good") + side.frame(3, b"bad"))
    assert first == b"good"
    assert isinstance(second, Violation)


@sides
def test_a_close_without_a_code_is_one(side: Side) -> None:
    assert write(side.reader(LIMIT), side.frame(8, b"")) == [PeerClose(NO_CODE, "")]


@sides
def test_messages_have_buffers_of_their_own(side: Side) -> None:
    big = [pattern(90_000, seed) for seed in range(3)]
    events = write(side.reader(LIMIT), b"".join(side.frame(2, payload) for payload in big))
    assert [plain(event) for event in events] == big
