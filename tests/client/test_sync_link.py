"""How often a link without an event loop still reads when its deadline has passed, of a server that always has more.

All else that links do is told by tests/contract, over sockets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from policyserve.client.address import read_address
from policyserve.client.connection import Wire
from policyserve.client.handshake import Handshake
from policyserve.client.sync_link import Link, shake_hands
from policyserve.core.errors import DeadlineExceeded
from tests.contract.stalling import frame

ROBOT = read_address("ws://robot:8000", "openpi")
PING = frame(0x9, b"")


class Endless:
    """A Stream, and a socket, that always has more to read and takes all that is sent."""

    def __init__(self, more: bytes) -> None:
        self.more, self.reads = more, 0

    def is_readable(self, wait_ms: float) -> bool:
        return True

    def send(self, data: Any, deadline: float) -> None: ...
    def sendall(self, data: Any) -> None: ...
    def settimeout(self, timeout_s: float) -> None: ...
    def end_writing(self) -> None: ...
    def close(self) -> None: ...

    def receive(self, buffer: memoryview, deadline: float) -> int:
        self.reads += 1
        buffer[: len(self.more)] = self.more
        return len(self.more)

    def receive_waiting(self, buffer: memoryview) -> int:
        return self.receive(buffer, 0)

    def recv(self, count: int) -> bytes:
        self.reads += 1
        return self.more


def late(step: Callable[[Link, float], object]) -> int:
    """How often a step reads pings whose deadline has passed; it raises DeadlineExceeded."""
    stream: Any = Endless(PING)
    with pytest.raises(DeadlineExceeded):
        step(Link(stream, Wire(None), ROBOT, 30.0), time.monotonic() - 1)
    return stream.reads


def test_a_call_that_is_late_reads_once() -> None:
    assert late(lambda link, past: link.receive(past)) == 1
    assert late(lambda link, past: link.ask([b"?"], past)) == 1


def test_what_came_between_two_calls_is_read_once_when_the_second_is_late() -> None:
    assert late(lambda link, past: link.is_usable(False, past)) == 1


def test_a_pong_that_is_late_is_not_waited_for() -> None:
    assert late(lambda link, past: link.is_usable(True, past)) == 2


def test_a_close_that_is_late_reads_once() -> None:
    stream: Any = Endless(PING)
    Link(stream, Wire(None), ROBOT, 30.0).close(time.monotonic() - 1)
    assert stream.reads == 1


def test_an_answer_that_is_whole_is_taken_after_the_deadline_too() -> None:
    stream: Any = Endless(frame(0x2, b"\x80"))
    message = Link(stream, Wire(None), ROBOT, 30.0).ask([b"?"], time.monotonic() - 1)
    assert isinstance(message, memoryview)
    assert bytes(message) == b"\x80"


def test_a_handshake_that_is_late_reads_once() -> None:
    connected: Any = Endless(b"H")
    with pytest.raises(TimeoutError):
        shake_hands(connected, Handshake(ROBOT, None), time.monotonic() - 1)
    assert connected.reads == 1
