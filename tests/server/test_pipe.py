"""What goes out to one peer: over a transport that takes nothing, as a peer's does that does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from policyserve.server.pipe import JOINED, Pipe
from policyserve.websocket.frames import BINARY, PING, close_payload, frame_header


class Full(asyncio.Transport):
    """Keeps what is written, until a test has it taken."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = b""
        self.calls: list[str] = []
        self.pause_writing: Callable[[], None] = lambda: None  # the protocol's

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.kept += bytes(data)
        self.set_write_buffer_limits()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """As asyncio's of Python 3.12.1 and 3.13.0, which does not look at what waits."""
        self.kept += b"".join(list_of_data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if len(self.kept) > (high or 1 << 16):
            pause, self.pause_writing = self.pause_writing, lambda: None  # told once
            pause()

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def is_closing(self) -> bool:
        return "abort" in self.calls

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def abort(self) -> None:
        self.calls.append("abort")


def pipe() -> tuple[Pipe, Full, list[int]]:
    """An open pipe, its transport, and what it tells of unread bytes."""
    told: list[int] = []
    made, transport = Pipe(told.append), Full()
    made.transport = transport
    return made, transport, told


@pytest.mark.parametrize("size", [0, 125, JOINED, JOINED + 1])
def test_a_frame_goes_out_whole_in_one_write_or_two(size: int) -> None:
    made, transport, _ = pipe()
    made.write_frame(BINARY, bytes(size))
    assert transport.kept == frame_header(BINARY, size) + bytes(size)


def test_no_frame_follows_a_close_frame() -> None:
    made, transport, _ = pipe()
    made.write_close(1001, "bye")
    sent = transport.kept
    made.write_frame(PING, b"")
    assert sent.endswith(close_payload(1001, "bye"))
    assert transport.kept == sent


def test_what_a_slow_peer_takes_and_leaves_is_counted() -> None:
    made, transport, told = pipe()
    made.write_frame(BINARY, bytes(100))
    assert (made.taken, told) == (None, [])
    made.is_slow = True
    made.count_backlog()
    made.write_frame(BINARY, bytes(50))
    assert told == [102, 50]  # what waited already, then a payload
    before, transport.kept = made.taken, transport.kept[40:]
    assert before is not None
    assert made.taken == before + 40
    assert made.unsent == 114


@pytest.mark.parametrize("size", [JOINED, JOINED + 1, 10 * JOINED])
def test_a_peer_is_slow_at_the_first_frame_that_waits_which_counts_once(size: int) -> None:
    made, transport, told = pipe()

    def pause() -> None:
        made.is_slow = True
        made.count_backlog()

    transport.pause_writing = pause
    made.write_frame(BINARY, bytes(size))
    assert made.is_slow
    assert told == [made.unsent] == [len(transport.kept)]
    made.write_frame(BINARY, bytes(size))
    assert told[1:] == [size]


def test_reading_is_paused_once_and_resumed_once() -> None:
    made, transport, _ = pipe()
    for is_wanted in (True, False, False, True, True):
        made.set_reading(is_wanted)
    assert transport.calls == ["pause", "resume"]


def test_nothing_happens_where_the_peer_is_gone() -> None:
    made, transport, told = pipe()
    made.abort()
    made.set_reading(False)
    made.write(b"late")
    made.write_frame(BINARY, b"late")
    made.transport = None
    made.abort()
    made.half_close()
    assert (transport.kept, transport.calls, told, made.unsent, made.is_open) == (b"", ["abort"], [], 0, False)
