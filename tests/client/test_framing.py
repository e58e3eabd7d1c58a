"""The client's frames against websockets' sans-I/O server, however the bytes are cut; and what breaks the rules."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from policyserve.client.framing import FrameReader, FrameWriter
from policyserve.core.buffers import BufferPool
from policyserve.core.frames import (
    BAD_TEXT,
    BINARY,
    NO_CODE,
    PING,
    PROTOCOL_ERROR,
    TOO_BIG,
    FrameEvent,
    PeerClose,
    Ping,
    Pong,
    Violation,
)
from policyserve.core.messages import Part

LIMIT = 100_000
SIZES = st.one_of(st.integers(0, 300), st.sampled_from([16_370, 16_384, 65_535, 65_536, 65_537, 99_999]))


def reader(limit: int = LIMIT) -> FrameReader:
    return FrameReader(limit, BufferPool(1 << 24))


def write(to: FrameReader, data: bytes, cuts: Iterator[int] | None = None) -> list[FrameEvent]:
    """Hand bytes over as a socket does: into get_buffer(), in pieces of the given sizes."""
    events: list[FrameEvent] = []
    while data:
        space = to.get_buffer()
        assert len(space) > 0
        count = min(len(space), len(data), next(cuts, 1 << 30) if cuts else 1 << 30)
        space[:count] = data[:count]
        del space
        events += to.advance(count)
        data = data[count:]
    return events


def frame(opcode: int, payload: bytes, is_final: bool = True) -> bytes:
    """A server's frame, written out by hand."""
    size = len(payload)
    head = bytes([(0x80 if is_final else 0) | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    if size < 1 << 16:
        return head + struct.pack(">BH", 126, size) + payload
    return head + struct.pack(">BQ", 127, size) + payload


def pattern(size: int, seed: int = 0) -> bytes:
    return bytes((index * 7 + seed) % 251 for index in range(size))


def plain(event: FrameEvent) -> object:
    """An event to compare: a message's own value, the rest as it is."""
    return bytes(event) if isinstance(event, memoryview) else event


def theirs() -> ServerProtocol:
    """websockets' own server, connected to nothing."""
    return ServerProtocol(state=State.OPEN, max_size=None)


def key_source() -> FrameWriter:
    """A writer whose keys differ from frame to frame."""
    generator = np.random.default_rng(0)
    return FrameWriter(lambda count: generator.bytes(count))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_websockets_sends_is_read_however_it_is_cut(data: st.DataObject) -> None:
    server, expected = theirs(), []
    for number in range(data.draw(st.integers(1, 5))):
        payload = pattern(data.draw(SIZES), number)
        kind = data.draw(st.sampled_from(["binary", "fragments", "ping", "pong", "text"]))
        if kind == "binary":
            server.send_binary(payload)
            expected.append(payload)
        elif kind == "fragments":
            middle = data.draw(st.integers(0, len(payload)))
            server.send_binary(payload[:middle], fin=False)
            server.send_ping(b"between")
            server.send_continuation(payload[middle:], fin=True)
            expected += [Ping(b"between"), payload]
        elif kind == "text":
            server.send_text(payload.hex().encode())
            expected.append(payload.hex())
        elif kind == "ping":
            server.send_ping(payload[:125])
            expected.append(Ping(payload[:125]))
        else:
            server.send_pong(payload[:125])
            expected.append(Pong(payload[:125]))
    server.send_close(1000, "bye")
    sent = b"".join(server.data_to_send())
    cuts = iter(data.draw(st.lists(st.integers(1, 70_000), max_size=40)))
    events = write(reader(LIMIT * 2), sent, cuts)
    assert [plain(event) for event in events] == [*expected, PeerClose(1000, "bye")]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_end_as_they_do_in_websockets(data: st.DataObject) -> None:
    """Frames of every opcode and flag, valid or not: the same messages, and the same close code where it ends."""
    stream = b""
    for _ in range(data.draw(st.integers(1, 6))):
        opcode = data.draw(st.sampled_from([0, 0, 2, 2, 8, 9, 10, 3]))
        payload = data.draw(st.one_of(st.binary(max_size=20), st.just(b"\x03\xe8ok"), st.just(pattern(200))))
        built = bytearray(frame(opcode, payload, data.draw(st.booleans())))
        if data.draw(st.integers(0, 9)) == 0:
            where, bit = data.draw(st.sampled_from([(0, 0x10), (0, 0x40), (1, 0x80)]))  # reserved bits, and a mask
            built[where] ^= bit
        stream += built
    client = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=LIMIT)
    client.receive_data(stream)
    events = write(reader(), stream, iter(data.draw(st.lists(st.integers(1, 50), max_size=20))))
    ended = [event for event in events if isinstance(event, (PeerClose, Violation))]
    messages = [bytes(event) for event in events if isinstance(event, memoryview)]
    assert messages == whole_messages(client)
    if client.close_rcvd is not None and not any(isinstance(event, Violation) for event in ended):
        assert ended == [PeerClose(client.close_rcvd.code, client.close_rcvd.reason)]
    elif client.close_sent is not None:
        (violation,) = ended
        assert isinstance(violation, Violation)
        assert violation.code == client.close_sent.code
    else:
        assert ended == []


def whole_messages(client: ClientProtocol) -> list[bytes]:
    whole: list[bytes] = []
    parts: list[bytes] = []
    for event in client.events_received():
        if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                whole.append(b"".join(parts))
                parts = []
    return whole


BROKEN = {
    "a reserved bit": (bytes([0xC2]) + frame(2, b"x")[1:], PROTOCOL_ERROR),
    "an unknown opcode": (frame(3, b"x"), PROTOCOL_ERROR),
    "a masked frame": (b"\x82\x81maskx", PROTOCOL_ERROR),
    "a continuation of nothing": (frame(0, b"x"), PROTOCOL_ERROR),
    "a message inside another": (frame(2, b"x", is_final=False) + frame(2, b"y"), PROTOCOL_ERROR),
    "a fragmented ping": (frame(9, b"x", is_final=False), PROTOCOL_ERROR),
    "a ping of 126 bytes": (frame(9, b"x" * 126), PROTOCOL_ERROR),
    "a close of one byte": (frame(8, b"x"), PROTOCOL_ERROR),
    "a close code that must not be sent": (frame(8, struct.pack(">H", 1006)), PROTOCOL_ERROR),
    "a close reason that is no text": (frame(8, struct.pack(">H", 1000) + b"\xff"), BAD_TEXT),
    "a text that is none": (frame(1, b"\xff\xfe"), BAD_TEXT),
    "a message beyond the limit": (frame(2, b"x" * (LIMIT + 1))[:10], TOO_BIG),
    "fragments beyond the limit": (frame(2, b"x" * LIMIT, is_final=False) + frame(0, b"x"), TOO_BIG),
    "2**63 bytes": (b"\x82\x7f" + struct.pack(">Q", 1 << 63), TOO_BIG),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_breaks_the_rules_gets_no_further(kind: str) -> None:
    data, code = BROKEN[kind]
    to = reader()
    (violation,) = write(to, data)
    assert isinstance(violation, Violation)
    assert violation.code == code
    assert write(to, frame(2, b"more")) == []


def test_a_close_without_a_code_is_one() -> None:
    assert write(reader(), frame(8, b"")) == [PeerClose(NO_CODE, "")]


def test_bytes_from_elsewhere_are_read_as_those_of_the_socket() -> None:
    sent = frame(2, pattern(50_000)) + frame(9, b"x") + frame(2, b"y")
    to = reader()
    events = to.feed(sent[:20_000]) + to.feed(sent[20_000:])
    assert [plain(event) for event in events] == [pattern(50_000), Ping(b"x"), b"y"]


def test_messages_have_buffers_of_their_own_until_nobody_holds_them() -> None:
    to = reader()
    big = [pattern(90_000, seed) for seed in range(3)]
    events = write(to, b"".join(frame(2, payload) for payload in big))
    views = [event for event in events if isinstance(event, memoryview)]
    assert [bytes(view) for view in views] == big
    owners = {id(view.obj) for view in views}
    del views, events
    (again,) = write(to, frame(2, big[0]))
    assert isinstance(again, memoryview)
    assert id(again.obj) in owners, "a free buffer is used again"


# Writing


def sent(writer: FrameWriter, *parts: Part, opcode: int = BINARY) -> bytes:
    """All windows of one frame; copied at once, since the next one overwrites the one before."""
    return b"".join(bytes(window) for window in writer.windows(opcode, parts))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_is_written_is_what_websockets_reads(data: st.DataObject) -> None:
    writer, server, expected = key_source(), theirs(), []
    for number in range(data.draw(st.integers(1, 4))):
        sizes = data.draw(st.lists(st.one_of(SIZES, st.sampled_from([262_143, 600_001])), max_size=5))
        pieces = [pattern(size, number) for size in sizes]
        parts = [memoryview(piece) if data.draw(st.booleans()) else piece for piece in pieces]
        server.receive_data(sent(writer, *parts))
        expected.append(b"".join(pieces))
    assert [bytes(event.data) for event in server.events_received() if isinstance(event, Frame)] == expected
    assert server.parser_exc is None


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 3_000_000])
def test_a_frame_of_any_size_is_read_by_websockets(size: int) -> None:
    server, payload = theirs(), pattern(size)
    server.receive_data(sent(key_source(), payload))
    (read,) = server.events_received()
    assert isinstance(read, Frame)
    assert bytes(read.data) == payload


def test_a_frame_without_mask_has_a_key_of_zeros() -> None:
    for size in (10, 1_000, 700_000):
        server, payload = theirs(), pattern(size)
        written = sent(FrameWriter(None), payload[: size // 2], memoryview(payload)[size // 2 :])
        assert written.endswith(bytes(4) + payload)
        server.receive_data(written)
        (read,) = server.events_received()
        assert isinstance(read, Frame)
        assert bytes(read.data) == payload


def test_no_two_frames_have_the_same_key() -> None:
    drawn: list[int] = []

    def draw(count: int) -> bytes:
        drawn.append(count)
        return np.random.default_rng(len(drawn)).bytes(count)

    writer = FrameWriter(draw)
    keys = [writer.frame(PING, b"")[2:] for _ in range(1_000)]
    assert len(set(keys)) == 1_000
    assert len(drawn) < 10, "keys are drawn in blocks"


def test_a_large_frame_needs_no_buffer_of_its_size() -> None:
    longest = max(len(window) for window in key_source().windows(BINARY, [bytes(5_000_000)]))
    assert longest <= 1 << 18
