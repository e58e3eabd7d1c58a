"""How the client reads frames and writes them, the latter against websockets' sans-I/O server.

tests/websocket/test_reader_contract.py has the rules of reading, which both halves share.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from policyserve.core.messages import Part
from policyserve.websocket.client_frames import FrameReader, FrameWriter
from policyserve.websocket.frames import BINARY, PING, Ping, Violation
from tests.websocket.written_frames import frame, pattern, plain, write

LIMIT = 100_000
SIZES = st.one_of(st.integers(0, 300), st.sampled_from([16_370, 16_384, 65_535, 65_536, 65_537, 99_999]))


def reader() -> FrameReader:
    return FrameReader(LIMIT)


def theirs() -> ServerProtocol:
    """websockets' own server, connected to nothing."""
    return ServerProtocol(state=State.OPEN, max_size=None)


def key_source() -> FrameWriter:
    """A writer whose keys differ from frame to frame."""
    generator = np.random.default_rng(0)
    return FrameWriter(lambda count: generator.bytes(count))


def test_bytes_from_elsewhere_are_read_as_those_of_the_socket() -> None:
    sent = frame(2, pattern(50_000)) + frame(9, b"x") + frame(2, b"y")
    to = reader()
    events = to.feed(sent[:20_000]) + to.feed(sent[20_000:])
    assert [plain(event) for event in events] == [pattern(50_000), Ping(b"x"), b"y"]


def test_messages_have_buffers_of_their_own() -> None:
    to = reader()
    big = [pattern(90_000, seed) for seed in range(3)]
    events = write(to, b"".join(frame(2, payload) for payload in big))
    views = [event for event in events if isinstance(event, memoryview)]
    assert [bytes(view) for view in views] == big
    assert len({id(view.obj) for view in views}) == len(big)


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


def test_a_large_frame_without_mask_is_not_copied() -> None:
    image = memoryview(bytearray(300_000))
    pieces = FrameWriter(None).windows(BINARY, [b"before", image, b"behind"])
    assert isinstance(pieces, list), "for one system call"
    assert pieces[2] is image


@pytest.mark.parametrize("before", [b"", frame(2, b"x", is_final=False), frame(9, b"ping"), b"\x82"])
def test_a_message_alone_is_read_as_one_among_others(before: bytes) -> None:
    """In one read with nothing else: the short way. Whatever stands before it, also in a read of its own, decides."""
    for size in (0, 1, 125, 126, 127, 5_000, 16_380):
        short, long = reader(), reader()
        data = frame(2, pattern(size))
        found, expected = write(short, before) + write(short, data), write(long, before + data)
        assert [plain(event) for event in found] == [plain(event) for event in expected]


@pytest.mark.parametrize("size", [127, 128])
def test_the_second_byte_is_a_size_only_up_to_125(size: int) -> None:
    """127 announces a long size, and 128 is a mask: a read of just as many bytes is no message."""
    data = bytes([0x82, size]) + bytes(7) + b"\xff" + bytes(size - 8)
    assert [type(event) for event in write(reader(), data)] == ([] if size == 127 else [Violation])


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
    assert longest <= 1 << 19
