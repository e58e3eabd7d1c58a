"""Our frames against websockets' sans-I/O protocol, however the bytes are cut; and what breaks the rules."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from policyserve.core.buffers import BufferPool
from policyserve.core.frames import (
    BAD_TEXT,
    NO_CODE,
    PROTOCOL_ERROR,
    TOO_BIG,
    FrameEvent,
    PeerClose,
    Ping,
    Violation,
    close_payload,
    frame_header,
)
from policyserve.server.framing import FrameReader, unmask

LIMIT = 100_000
SIZES = st.one_of(st.integers(0, 300), st.sampled_from([65_535, 65_536, 65_537, 70_000, 99_999]))


def reader(limit: int = LIMIT, scratch: int = 1 << 16) -> FrameReader:
    return FrameReader(limit, BufferPool(1 << 24), bytearray(scratch))


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


def frame(opcode: int, payload: bytes, is_final: bool = True, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame, written out by hand."""
    size = len(payload)
    head = bytes([(0x80 if is_final else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += struct.pack(">BH", 0x80 | 126, size)
    else:
        head += struct.pack(">BQ", 0x80 | 127, size)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def pattern(size: int, seed: int = 0) -> bytes:
    return bytes((index * 7 + seed) % 251 for index in range(size))


def plain(event: FrameEvent) -> object:
    """An event to compare: a message's own value, a ping as a pair, the rest as it is."""
    if isinstance(event, memoryview):
        return bytes(event)
    return ("ping", event.payload) if isinstance(event, Ping) else event


class TheirClient:
    """websockets' own client, connected to nothing."""

    def __init__(self) -> None:
        self.protocol = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=None)

    def said(self) -> bytes:
        return b"".join(self.protocol.data_to_send())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_websockets_sends_is_read_however_it_is_cut(data: st.DataObject) -> None:
    client, expected, sent = TheirClient(), [], b""
    for number in range(data.draw(st.integers(1, 5))):
        payload = pattern(data.draw(SIZES), number)
        kind = data.draw(st.sampled_from(["binary", "fragments", "ping", "pong", "text"]))
        if kind == "binary":
            client.protocol.send_binary(payload)
            expected.append(payload)
        elif kind == "fragments":
            middle = data.draw(st.integers(0, len(payload)))
            client.protocol.send_binary(payload[:middle], fin=False)
            client.protocol.send_ping(b"between")
            client.protocol.send_continuation(payload[middle:], fin=True)
            expected += [("ping", b"between"), payload]
        elif kind == "text":
            client.protocol.send_text(payload.hex().encode())
            expected.append(payload.hex())
        elif kind == "ping":
            client.protocol.send_ping(payload[:125])
            expected.append(("ping", payload[:125]))
        else:
            client.protocol.send_pong(payload[:125])
        sent += client.said()
    client.protocol.send_close(1000, "bye")
    sent += client.said()
    cuts = iter(data.draw(st.lists(st.integers(1, 70_000), max_size=40)))
    events = write(reader(LIMIT * 2), sent, cuts)
    read = [plain(event) for event in events]
    assert read == [*expected, PeerClose(1000, "bye")]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_end_as_they_do_in_websockets(data: st.DataObject) -> None:
    """Frames of every opcode and flag, valid or not: the same messages, and the same close code where it ends."""
    stream = b""
    for _ in range(data.draw(st.integers(1, 6))):
        opcode = data.draw(st.sampled_from([0, 0, 1, 2, 2, 8, 9, 10, 3]))
        payload = data.draw(st.one_of(st.binary(max_size=20), st.just(b"\x03\xe8ok"), st.just(pattern(200))))
        built = bytearray(
            frame(opcode, payload, data.draw(st.booleans()), data.draw(st.binary(min_size=4, max_size=4)))
        )
        if data.draw(st.integers(0, 9)) == 0:
            built[0] ^= data.draw(st.sampled_from([0x10, 0x40]))
        stream += built
    theirs = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    theirs.receive_data(stream)
    events = write(reader(), stream, iter(data.draw(st.lists(st.integers(1, 50), max_size=20))))
    ended = [event for event in events if isinstance(event, (PeerClose, Violation))]
    assert [bytes(message) for message in messages(events)] == assembled(theirs.events_received())
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


def messages(events: Sequence[FrameEvent]) -> list[bytes]:
    return [
        event.encode() if isinstance(event, str) else bytes(event)
        for event in events
        if isinstance(event, (str, memoryview))
    ]


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


BROKEN = {
    "a reserved bit": (bytes([0xC2]) + frame(2, b"x")[1:], PROTOCOL_ERROR),
    "an unknown opcode": (frame(3, b"x"), PROTOCOL_ERROR),
    "a frame without a mask": (b"\x82\x01x", PROTOCOL_ERROR),
    "a continuation of nothing": (frame(0, b"x"), PROTOCOL_ERROR),
    "a message inside another": (frame(2, b"x", is_final=False) + frame(2, b"y"), PROTOCOL_ERROR),
    "a fragmented ping": (frame(9, b"x", is_final=False), PROTOCOL_ERROR),
    "a ping of 126 bytes": (frame(9, b"x" * 126), PROTOCOL_ERROR),
    "a close of one byte": (frame(8, b"x"), PROTOCOL_ERROR),
    "a close code that must not be sent": (frame(8, struct.pack(">H", 1006)), PROTOCOL_ERROR),
    "a close reason that is no text": (frame(8, struct.pack(">H", 1000) + b"\xff"), BAD_TEXT),
    "a text that is none": (frame(1, b"\xff\xfe"), BAD_TEXT),
    "a message beyond the limit": (frame(2, b"x" * (LIMIT + 1))[:14], TOO_BIG),
    "fragments beyond the limit": (frame(2, b"x" * LIMIT, is_final=False) + frame(0, b"x"), TOO_BIG),
    "2**63 bytes": (b"\x82\xff" + struct.pack(">Q", 1 << 63) + b"mask", TOO_BIG),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_peer_that_breaks_the_rules_gets_no_further(kind: str) -> None:
    data, code = BROKEN[kind]
    to = reader()
    (violation,) = write(to, data)
    assert isinstance(violation, Violation)
    assert violation.code == code
    assert write(to, frame(2, b"more")) == []


def test_a_message_before_a_broken_frame_is_not_lost() -> None:
    first, second = write(reader(), frame(2, b"good") + frame(3, b"bad"))
    assert first == b"good"
    assert isinstance(second, Violation)


def test_fragments_of_nothing_take_no_memory() -> None:
    """A message's size is bounded, so must be what its fragments cost, however many there are."""
    to = reader()
    write(to, frame(2, b"", is_final=False))
    tracemalloc.start()
    try:
        for _ in range(20):
            assert write(to, frame(0, b"", is_final=False) * 1000) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
    (message,) = write(to, frame(0, b"end"))
    assert message == b"end"


def test_a_close_without_a_code_is_one() -> None:
    assert write(reader(), frame(8, b"")) == [PeerClose(NO_CODE, "")]
    assert close_payload(NO_CODE, "x") == b""
    assert close_payload(1008, "why") == b"\x03\xf0why"


def test_messages_have_buffers_of_their_own() -> None:
    to = reader()
    big = [pattern(90_000, seed) for seed in range(3)]
    events = write(to, b"".join(frame(2, payload) for payload in big))
    assert [bytes(event) for event in events if isinstance(event, memoryview)] == big


@given(payload=st.binary(max_size=400), mask=st.binary(min_size=4, max_size=4))
def test_unmasking_is_xor(payload: bytes, mask: bytes) -> None:
    buffer = bytearray(payload)
    unmask(memoryview(buffer), mask)
    assert bytes(buffer) == bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 3_000_000])
def test_a_header_is_what_websockets_writes(size: int) -> None:
    theirs = ServerProtocol(state=State.OPEN, max_size=None)
    theirs.send_binary(bytes(size))
    written = b"".join(theirs.data_to_send())
    assert written[: len(written) - size] == frame_header(2, size)


def test_messages_that_arrive_at_the_same_time_never_share_a_buffer() -> None:
    """Many peers of one pool, each sending a large message in pieces, in turns."""
    pool, scratch = BufferPool(1 << 24), bytearray(1 << 12)
    for _ in range(2):  # the second time over, the pool has buffers to give out again
        readers = [FrameReader(LIMIT, pool, scratch) for _ in range(4)]
        sent = [pattern(90_000, seed) for seed in range(4)]
        left = [frame(2, payload) for payload in sent]
        read: dict[int, bytes] = {}
        while any(left):
            for number, to in enumerate(readers):
                for event in write(to, left[number][:20_000]):
                    assert isinstance(event, memoryview)
                    read[number] = bytes(event)
                left[number] = left[number][20_000:]
        assert [read[number] for number in range(4)] == sent


def test_a_buffer_is_used_again_only_when_nobody_holds_a_view_of_it() -> None:
    pool = BufferPool(1 << 22)
    first = pool.take(200_000)
    view = memoryview(first)
    second = pool.take(200_000)
    assert second is not first
    held = memoryview(second)
    assert all(pool.take(200_000) is not one for one in (first, second))
    view.release()
    views = [memoryview(pool.take(200_000)) for _ in range(2)]
    assert any(one.obj is first for one in views)
    assert not any(one.obj is second for one in views)
    held.release()


def test_the_pool_keeps_no_more_than_it_may() -> None:
    pool = BufferPool(1 << 20)
    held = [memoryview(pool.take(300_000)) for _ in range(10)]
    assert pool.kept_bytes <= 1 << 20
    del held
    for size in (100_000, 400_000, 800_000, 100_000):
        pool.take(size)
        assert pool.kept_bytes <= 1 << 20


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_large_messages_land_where_they_stay(data: st.DataObject) -> None:
    """After a large message the next one's bytes go straight to its buffer, unless something else comes."""
    sizes = st.one_of(st.sampled_from([0, 5, 126, 70_000, 70_001, 90_000, 65_536, 65_535]), st.integers(0, 100_000))
    drawn = data.draw(st.lists(st.tuples(sizes, st.sampled_from([2, 2, 2, 1, 9])), min_size=2, max_size=6))
    pool = BufferPool(1 << 22)
    to = FrameReader(LIMIT, pool, bytearray(1 << 16))
    expected: list[object] = []
    sent = b""
    for number, (size, opcode) in enumerate(drawn):
        payload = b"a" * size if opcode == 1 else pattern(size % 126 if opcode == 9 else size, number)
        sent += frame(opcode, payload, mask=bytes([number, 7, 1, number]))
        expected.append({1: payload.decode("latin-1"), 2: payload, 9: ("ping", payload)}[opcode])
    cuts = iter(data.draw(st.lists(st.integers(1, 80_000), max_size=40)))
    events = write(to, sent, cuts)  # all held until the end: a buffer used twice would show
    assert [plain(event) for event in events] == expected


def test_a_second_camera_frame_is_not_copied() -> None:
    to = FrameReader(LIMIT, BufferPool(1 << 22), bytearray(1 << 16))
    for seed in range(2):
        (event,) = write(to, frame(2, pattern(90_000, seed)))
        assert event == pattern(90_000, seed)
        del event
    assert len(to.get_buffer()) > 90_000  # where the third may come whole


def test_a_peer_that_sends_nothing_after_a_large_message_holds_no_buffer() -> None:
    """An event loop may ask for a buffer and then have nothing to write."""
    pool = BufferPool(1 << 22)
    readers = [FrameReader(LIMIT, pool, bytearray(1 << 16)) for _ in range(5)]
    for to in readers:
        assert write(to, frame(2, pattern(90_000))) == [pattern(90_000)]
        to.get_buffer()
    assert pool.kept_bytes < 2 * 90_000 * 9 // 8
    for seed, to in enumerate(readers):  # and what it got is nobody else's by then
        assert write(to, frame(2, pattern(90_000, seed))) == [pattern(90_000, seed)]
    pool.shrink()
    pool.shrink()
    assert pool.kept_bytes == 0


def test_a_pool_forgets_a_rush() -> None:
    pool = BufferPool(1 << 24)
    rush = [memoryview(pool.take(200_000)) for _ in range(8)]
    full = pool.kept_bytes
    pool.shrink()
    assert pool.kept_bytes == full  # all were wanted since the pool is there
    held = rush[3]
    del rush
    for _ in range(5):
        pool.take(200_000)
    pool.shrink()
    assert pool.kept_bytes == full // 8 * 2  # the one that is used again and again, and the one that is held
    del held
    pool.shrink()
    pool.shrink()
    assert pool.kept_bytes == 0


def test_no_read_takes_more_than_its_share_of_a_large_message() -> None:
    to = FrameReader(1 << 24, BufferPool(1 << 25), bytearray(1 << 16))
    whole = frame(2, bytes(3 << 20))
    for _ in range(2):  # the second message's first bytes go straight to its buffer
        sizes: list[int] = []
        events: list[FrameEvent] = []
        left = memoryview(whole)
        while left:
            space = to.get_buffer()
            count = min(len(space), len(left))
            sizes.append(len(space))
            space[:count] = left[:count]
            del space
            events += to.advance(count)
            left = left[count:]
        assert len(events) == 1
        assert max(sizes) == 1 << 19
