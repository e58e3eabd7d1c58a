"""How the server reads frames: where messages land, and what that costs.

tests/websocket/test_reader_contract.py has the rules, which both halves share.
"""

from __future__ import annotations

import tracemalloc
import weakref
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import State
from websockets.server import ServerProtocol

from policyserve.core.messages import EncodedText
from policyserve.websocket import server_frames
from policyserve.websocket.frames import NO_CODE, FrameEvent, Ping, close_payload, frame_header
from policyserve.websocket.server_frames import FrameReader, make_scratch, unmask
from tests.counted_memory import counted_memory
from tests.websocket import written_frames
from tests.websocket.written_frames import MASK, pattern, plain, write

LIMIT = 100_000
frame = partial(written_frames.frame, mask=MASK)  # a client's


def reader() -> FrameReader:
    return FrameReader(LIMIT, make_scratch())


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


def test_a_close_without_a_code_is_written_as_nothing() -> None:
    assert close_payload(NO_CODE, "x") == b""
    assert close_payload(1008, "why") == b"\x03\xf0why"


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
    """Many peers of one scratch, each sending a large message in pieces, in turns."""
    scratch = bytearray(1 << 12)
    readers = [FrameReader(LIMIT, scratch) for _ in range(4)]
    for _ in range(2):
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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_messages_of_all_sizes_stay_as_they_came(data: st.DataObject) -> None:
    """Whatever comes behind a large message, and however the bytes are cut."""
    sizes = st.one_of(st.sampled_from([0, 5, 126, 70_000, 70_001, 90_000, 65_536, 65_535]), st.integers(0, 100_000))
    drawn = data.draw(st.lists(st.tuples(sizes, st.sampled_from([2, 2, 2, 1, 9])), min_size=2, max_size=6))
    to = FrameReader(LIMIT, make_scratch())
    expected: list[object] = []
    sent = b""
    for number, (size, opcode) in enumerate(drawn):
        payload = b"a" * size if opcode == 1 else pattern(size % 126 if opcode == 9 else size, number)
        sent += frame(opcode, payload, mask=bytes([number, 7, 1, number]))
        expected.append({1: payload.decode("latin-1"), 2: payload, 9: Ping(payload)}[opcode])
    cuts = iter(data.draw(st.lists(st.integers(1, 80_000), max_size=40)))
    events = write(to, sent, cuts)  # all held until the end: a buffer used twice would show
    assert [plain(event) for event in events] == expected


def test_a_peer_that_sends_nothing_after_a_large_message_holds_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop may ask for a buffer and then have nothing to write."""
    taken: list[weakref.ref[Memory]] = []

    def allocate(size: int) -> bytearray:
        taken.append(weakref.ref(memory := Memory(size)))
        return memory

    def held() -> int:
        return sum(memory() is not None for memory in taken)

    monkeypatch.setattr(server_frames, "allocate", allocate)
    scratch = make_scratch()
    readers = [FrameReader(LIMIT, scratch) for _ in range(5)]
    for to in readers:
        assert write(to, frame(2, pattern(90_000))) == [pattern(90_000)]
        to.get_buffer()
    assert len(taken) == len(readers)
    assert held() == 0


class Memory(bytearray):
    """A message's, to which there are weak references."""


def test_no_read_takes_more_than_its_share_of_a_large_message() -> None:
    to = FrameReader(1 << 24, make_scratch())
    whole = frame(2, bytes(3 << 20))
    for _ in range(2):
        sizes: list[int] = []
        events: list[FrameEvent | EncodedText] = []
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


@pytest.mark.parametrize("fragments", [1, 3])
def test_a_text_is_checked_without_being_decoded_as_a_whole(fragments: int) -> None:
    """One letter beyond 16 bits makes a str take four bytes for each."""
    text = b"a" * 999_999 + "\U0001f600é中".encode() * 100
    cut = len(text) // fragments + 1
    pieces = [text[start : start + cut] for start in range(0, len(text), cut)]
    sent = [frame(1 if number == 0 else 0, piece, number == len(pieces) - 1) for number, piece in enumerate(pieces)]
    to = FrameReader(LIMIT * 20, make_scratch())
    with counted_memory() as memory:
        (event,) = [event for one in sent for event in write(to, one)]
    assert isinstance(event, EncodedText)
    assert bytes(event.data) == text
    assert memory.left < len(text) * 1.3
