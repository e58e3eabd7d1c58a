"""Sockets that take and give little at a time, and a deadline for all of it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from policyserve.client.sockets import PIECES, Stream, behind
from policyserve.core.messages import Part
from tests.server.live import DEADLINE_S

Pair = tuple[Stream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A stream whose socket takes a few kilobytes at most, and its peer, which blocks."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        theirs.settimeout(DEADLINE_S)
        yield Stream(ours), theirs


def soon() -> float:
    return time.monotonic() + DEADLINE_S


class Reading:
    """Reads `size` bytes in a thread, a few at a time."""

    def __init__(self, peer: socket.socket, size: int) -> None:
        self._peer, self._size, self._read = peer, size, bytearray()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while len(self._read) < self._size and (data := self._peer.recv(3_000)):
            self._read += data

    def all(self) -> bytes:
        self._thread.join(DEADLINE_S)
        return bytes(self._read)


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def test_all_of_a_message_is_sent_however_little_the_socket_takes(pair: Pair) -> None:
    stream, peer = pair
    sent = pattern(300_000)
    reading = Reading(peer, len(sent))
    stream.send(sent, soon())
    assert reading.all() == sent


@pytest.mark.parametrize("sizes", [[10, 200_000, 0, 7, 100_000], [1] * (2 * PIECES + 3), [0, 0, 5], []])
def test_all_pieces_are_sent_in_their_order(pair: Pair, sizes: list[int]) -> None:
    stream, peer = pair
    whole, pieces, start = pattern(sum(sizes)), list[Part](), 0
    for size in sizes:
        pieces.append(memoryview(whole)[start : start + size])
        start += size
    reading = Reading(peer, len(whole))
    stream.send_pieces(pieces, soon())
    assert reading.all() == whole


@pytest.mark.parametrize("how", ["send", "send_pieces"])
def test_a_peer_that_takes_nothing_is_left_at_the_deadline(pair: Pair, how: str) -> None:
    stream, _ = pair
    message = pattern(3_000_000)
    with pytest.raises(TimeoutError):
        getattr(stream, how)(message if how == "send" else [message], time.monotonic() + 0.05)


def test_a_peer_that_says_nothing_is_left_at_the_deadline(pair: Pair) -> None:
    stream, _ = pair
    with pytest.raises(TimeoutError):
        stream.receive(memoryview(bytearray(10)), time.monotonic() + 0.05)


def test_what_has_come_is_received_after_the_deadline(pair: Pair) -> None:
    stream, peer = pair
    peer.sendall(b"late")
    buffer = bytearray(10)
    assert stream.receive(memoryview(buffer), time.monotonic() - 1) == 4
    assert buffer[:4] == b"late"


def test_nothing_that_waits_is_not_the_end(pair: Pair) -> None:
    stream, peer = pair
    buffer = memoryview(bytearray(10))
    assert stream.receive_waiting(buffer) is None
    assert not stream.is_readable(0)
    peer.close()
    assert stream.is_readable(0)
    assert stream.receive_waiting(buffer) == 0
    assert stream.receive(buffer, soon()) == 0


class Sipping(socket.socket):
    """Takes a byte at a time, and has half a TLS record to read: select says that both may go on."""

    calls = 0

    def send(self, *_: Any) -> int:
        self.calls += 1
        return 1

    def sendmsg(self, *_: Any) -> int:
        self.calls += 1
        return 1

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        self.calls += 1
        raise ssl.SSLWantReadError(2, "The operation did not complete")


@pytest.mark.parametrize(
    "step",
    [
        lambda stream, past: stream.send(bytes(100), past),
        lambda stream, past: stream.send_pieces([bytes(50)] * 2, past),
        lambda stream, past: stream.receive(memoryview(bytearray(100)), past),
    ],
    ids=["send", "send_pieces", "receive"],
)
def test_a_peer_with_which_all_goes_on_a_byte_at_a_time_gets_one_step_after_the_deadline(
    step: Callable[[Stream, float], object],
) -> None:
    ours, theirs = socket.socketpair()
    with Sipping(fileno=ours.detach()) as sipping, theirs:
        theirs.sendall(b"x")
        with pytest.raises(TimeoutError):
            step(Stream(sipping, (ssl.SSLWantReadError,)), time.monotonic() - 1)
        assert sipping.calls == 1


def test_what_is_left_of_pieces_is_what_was_not_sent() -> None:
    pieces: list[Part] = [b"ab", b"", memoryview(b"cde")]
    for sent in range(6):
        assert b"".join(behind(pieces, sent)) == b"abcde"[sent:]
    assert behind(pieces, 5) == []


def test_a_stream_polls_before_it_sleeps_where_bytes_come_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours, busy_poll_s=DEADLINE_S)
        asked: list[float] = []
        look = stream.is_readable
        stream.is_readable = lambda wait_ms: (asked.append(wait_ms), look(wait_ms))[1]
        for _ in range(4):
            theirs.sendall(b"x")
            assert stream.receive(memoryview(bytearray(8)), soon()) == 1
        assert all(wait_ms > 0 for wait_ms in asked[:3])  # nothing is known of it yet
        assert asked[3:] == [0]


def test_a_stream_that_polled_in_vain_waits_for_its_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours, busy_poll_s=0.02)
        for _ in range(4):
            theirs.sendall(b"x")
            stream.receive(memoryview(bytearray(8)), soon())
        deadline = time.monotonic() + 0.1
        with pytest.raises(TimeoutError):
            stream.receive(memoryview(bytearray(8)), deadline)
        assert time.monotonic() >= deadline
