"""Peers at their limits: each is cut at a stated bound, with a reason where it can read one, and others go on."""

from __future__ import annotations

import logging
import re
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

import policyserve
from policyserve.core import memory
from policyserve.core.policy import FunctionPolicy, Policy, as_policy, open_spec
from policyserve.server.server import Server
from tests.server.live import (
    DEADLINE_S,
    HANDSHAKE,
    Live,
    answer,
    ask,
    frame,
    masked,
    none_open,
    open_raw,
    read_frame,
    serving,
    until_eof,
)

BINARY, CLOSE, PING, PONG, CONT = 2, 8, 9, 10, 0
MIB = 1 << 20


def end_of(peer: socket.socket) -> tuple[int, str]:
    """The server's close frame, after whatever else it sent."""
    while True:
        opcode, payload = read_frame(peer)
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def pending(server: Server) -> int:
    """Requests of all sessions that have no answer yet."""
    return sum(one.session.pending for one in server.reception.conversations)


def blocking_reader(live: Live) -> socket.socket:
    """A WebSocket whose peer's machine has room for few answers."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(DEADLINE_S)
    peer.connect(("127.0.0.1", live.port))
    peer.sendall(HANDSHAKE + b"\r\n")
    return peer


# Time


def test_a_handshake_of_a_byte_a_time_is_cut_by_the_clock_and_not_by_the_byte() -> None:
    with serving(handshake_timeout_s=0.3) as live, live.tcp() as peer:
        told = b""
        peer.settimeout(0.02)
        for byte in HANDSHAKE * 10:  # longer than the time-out, at one byte per 20 ms
            peer.send(bytes([byte]))
            try:
                told = peer.recv(1000)
                break
            except TimeoutError:
                continue
        assert told.startswith(b"HTTP/1.1 408")
        assert b"no request within 0.3 s" in told
        assert live.answers()


@pytest.mark.parametrize(
    "begun",
    [
        masked(BINARY, b"", length=64 * MIB),
        masked(BINARY, bytes(100_000), length=64 * MIB),
        masked(BINARY, b"", length=100),
        masked(BINARY, bytes(10), fin=False),
        b"\x82",
    ],
    ids=["announced", "half", "small", "fragment", "a byte"],
)
def test_a_message_that_is_never_whole_ends_its_session(begun: bytes) -> None:
    with serving(message_timeout_s=0.2, ping_interval_s=0.05, first_frame_timeout_s=1_000) as live:
        peer, _ = open_raw(live)
        peer.sendall(begun)
        code, reason = end_of(peer)
        assert code == 1008
        assert reason == "a message was not whole within 0.2 s (--message-timeout-s)"
        peer.close()
        none_open(live)
        assert live.answers()


def test_a_message_that_trickles_in_within_its_time_is_served() -> None:
    """The wire of a robot with a bad radio: much slower than a look of the server, and it answers pings late."""
    sent = masked(BINARY, frame(np.arange(40_000)))
    with serving(lambda x: x[-1:], message_timeout_s=60, ping_interval_s=0.02) as live:
        peer, _ = open_raw(live)
        for start in range(0, len(sent), 20_000):
            assert read_frame(peer)[0] == PING  # so looks were taken between the pieces
            peer.sendall(sent[start : start + 20_000])
        while (received := read_frame(peer))[0] == PING:
            pass
        assert answer(received[1]) == 39_999
        peer.close()


def test_a_session_that_asks_nothing_is_closed_when_that_is_wanted() -> None:
    with serving(idle_timeout_s=1.0) as live, live.websocket() as idle:
        assert ask(idle, 1.0) == 1.0
        with pytest.raises(ConnectionClosed) as caught:
            idle.recv(timeout=DEADLINE_S)
        closed = caught.value.rcvd
        assert closed is not None
        assert (closed.code, closed.reason) == (1001, "nothing was asked for 1 s (--idle-timeout-s)")


def test_a_session_that_waits_for_a_long_answer_is_not_idle() -> None:
    release = threading.Event()

    def slow(x: Any) -> Any:
        assert release.wait(DEADLINE_S)
        return x

    with serving(slow, idle_timeout_s=0.05) as live, live.websocket() as peer, live.websocket() as idle:
        peer.send(frame([3.0]))
        with pytest.raises(ConnectionClosed):
            idle.recv(timeout=DEADLINE_S)  # so the time-out has struck
        release.set()
        assert answer(peer.recv(timeout=DEADLINE_S)) == 3.0


# Readers that do not read


def big_policy(size: int) -> Policy:
    """Answers that many bytes to anything."""
    return FunctionPolicy(lambda x: np.full(size // 4, x[0], np.float32), open_spec("big"))


def test_a_client_that_never_reads_is_cut_by_time_and_holds_nobody_up() -> None:
    with serving(big_policy(4 * MIB), unread_timeout_s=0.2) as live, live.websocket() as other:
        never = blocking_reader(live)
        for _ in range(8):
            never.sendall(masked(BINARY, frame([1.0])))
        live.until(lambda server: server.counters.requests >= 1)
        for number in range(3):
            assert ask(other, number) == number
        live.until(lambda server: server.counters.sessions_open == 1)
        assert ask(other, 7.0) == 7.0
        never.close()


def test_a_client_that_never_reads_is_cut_by_bytes(caplog: pytest.LogCaptureFixture) -> None:
    """Its requests came before it was slow: from then on no more are read."""
    release = threading.Event()

    def policy(x: Any) -> Any:
        assert release.wait(DEADLINE_S)
        return np.full(MIB, x[0], np.float32)

    with serving(policy, max_unread_mib=10, unread_timeout_s=1_000) as live:
        never = blocking_reader(live)
        for _ in range(8):
            never.sendall(masked(BINARY, frame([1.0])))
        live.until(lambda server: pending(server) == 8)
        release.set()
        live.until(lambda server: server.counters.sessions_open == 0)
        never.close()
        assert live.answers()
    assert "left 10 MiB of its answers unread (--max-unread-mib)" in caplog.text


# Memory


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_what_is_only_announced_takes_no_memory() -> None:
    """Fourteen bytes announce 64 MiB: a buffer must not be filled with zeros for them."""
    with serving() as live:
        before = resident_bytes()
        peers = [open_raw(live)[0] for _ in range(20)]
        for peer in peers:
            peer.sendall(masked(PING, b"there?") + masked(BINARY, b"", length=64 * MIB))
            assert read_frame(peer)[0] == PONG
        assert live.answers()
        assert resident_bytes() - before < 64 * MIB
        for peer in peers:
            peer.close()


def test_free_memory_is_given_back_once_after_large_messages_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(True))
    with serving(lambda x: x[:1]) as live, live.websocket() as robot:
        look = live.server._spare_memory.look  # type: ignore[union-attr]  # pyright: ignore[reportPrivateUsage]
        given_back.clear()
        robot.send(frame(np.full(500_000, 2.0)))
        assert answer(robot.recv(timeout=DEADLINE_S)) == 2.0
        live.call(look)
        assert not given_back
        live.call(look)
        live.until(lambda _: bool(given_back))
        live.call(look)
        live.call(look)
        assert len(given_back) == 1


def test_who_holds_most_makes_room_for_the_others() -> None:
    """Two that send all but the last byte of what they may, and a robot that goes on."""
    with serving(lambda x: x[:1], max_frame_mib=4, max_buffered_mib=6) as live, live.websocket() as robot:
        first, _ = open_raw(live)
        second, _ = open_raw(live)
        first.sendall(masked(BINARY, bytes(3 * MIB), length=4 * MIB))
        assert ask(robot, 1.0) == 1.0
        second.sendall(masked(BINARY, bytes(2 * MIB), length=4 * MIB))
        robot.send(frame(np.full(500_000, 2.0)))  # 2 MB: one too many
        assert answer(robot.recv(timeout=DEADLINE_S)) == 2.0
        code, reason = end_of(first)
        assert code == 1013
        assert reason == "the server holds 6 MiB of messages (--max-buffered-mib)"
        assert live.call(lambda: len(live.server.reception.conversations)) == 2  # type: ignore[union-attr]
        first.close()
        second.close()


def test_messages_that_wait_for_the_policy_count_too() -> None:
    started, release = threading.Event(), threading.Event()

    def slow(x: Any) -> Any:
        started.set()
        assert release.wait(DEADLINE_S)
        return x[:1]

    with serving(slow, max_frame_mib=4, max_buffered_mib=6) as live:
        hog, _ = open_raw(live)
        sent = masked(BINARY, frame(np.zeros(500_000)))
        hog.sendall(sent * 2)
        assert started.wait(DEADLINE_S)
        with live.websocket() as robot:
            robot.send(frame(np.full(300_000, 5.0)))
            robot.ping().wait(DEADLINE_S)
            hog.sendall(sent)
            assert end_of(hog)[0] == 1013
            live.until(lambda server: server.counters.sessions_open == 1)
            assert live.server.reception.waiting == 1  # it has not closed its side: a stop would cut it
            release.set()
            assert answer(robot.recv(timeout=DEADLINE_S)) == 5.0
        hog.close()


def test_small_messages_that_wait_count_too() -> None:
    """Each is read at once, and what is made of it takes more than itself."""
    started, release = threading.Event(), threading.Event()

    def slow(x: Any) -> Any:
        started.set()
        assert release.wait(DEADLINE_S)
        return x[:1]

    with serving(slow, max_frame_mib=1, max_buffered_mib=2, max_pending=5_000) as live, live.websocket() as robot:
        robot.send(frame([5.0]))
        assert started.wait(DEADLINE_S)
        hog, _ = open_raw(live)
        with suppress(OSError):
            hog.sendall(masked(BINARY, frame(np.zeros(16))) * 4_000)
        assert end_of(hog) == (1013, "the server holds 2 MiB of messages (--max-buffered-mib)")
        release.set()
        assert answer(robot.recv(timeout=DEADLINE_S)) == 5.0
        hog.close()


def test_fragments_count_too() -> None:
    with serving(lambda x: x[:1], max_frame_mib=4, max_buffered_mib=4) as live:
        peers = [open_raw(live)[0] for _ in range(3)]
        for peer in peers:
            peer.sendall(masked(BINARY, bytes(60_000), fin=False) + masked(CONT, bytes(60_000), fin=False) * 29)
        live.until(lambda server: server.counters.sessions_open == 2)
        assert live.answers()
        for peer in peers:
            peer.close()


def test_what_was_answered_counts_no_more() -> None:
    with serving(lambda x: x[:1], max_frame_mib=4, max_buffered_mib=4) as live, live.websocket() as robot:
        for number in range(20):  # 40 MB in all
            robot.send(frame(np.full(500_000, number)))
            assert answer(robot.recv(timeout=DEADLINE_S)) == number


def test_frames_that_come_before_the_policy_are_bounded_in_bytes() -> None:
    release = threading.Event()

    def load(_: Callable[[str], None]) -> Policy:
        assert release.wait(DEADLINE_S)
        return as_policy(lambda x: x[:1])

    with serving(load=load) as live, live.websocket() as hog, live.websocket() as robot:
        robot.send(frame([1.0]))
        for _ in range(30):
            hog.send(frame(np.zeros(12_000)))
        robot.ping().wait(DEADLINE_S)
        hog.ping().wait(DEADLINE_S)
        release.set()
        assert answer(robot.recv(timeout=DEADLINE_S)) == 1.0
        with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012 - some answers may come before
            while hog.recv(timeout=DEADLINE_S):
                pass
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1013
        assert "more than a megabyte waits" in caught.value.rcvd.reason


# Numbers


def test_of_too_many_connections_without_a_session_the_oldest_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    with serving(max_handshakes=10) as live:
        idle = [live.tcp() for _ in range(15)]
        with live.websocket() as robot:
            assert ask(robot, 1.0) == 1.0
        for peer in idle[:5]:
            assert peer.recv(1000) == b""
        idle[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert until_eof(idle[-1]).startswith(b"HTTP/1.1 200")
        for peer in idle:
            peer.close()
    assert "10 connections are no session, the most this server takes" in caplog.text


@pytest.mark.parametrize("size", [2_000, 60_000, 400_000])
def test_a_head_beyond_its_bound_is_431_that_says_so(size: int) -> None:
    with serving(max_head_kib=1) as live, live.tcp() as peer:
        peer.sendall(b"GET /" + b"x" * size + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        told = until_eof(peer)
        assert told.startswith(b"HTTP/1.1 431")
        assert b"more than 1024 bytes (--max-head-kib)" in told
        assert live.answers()


# The clock and the log


def test_a_clock_that_jumps_ends_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with serving(ping_interval_s=0.02, ping_timeout_s=60, idle_timeout_s=60) as live, live.websocket() as robot:
        for jump in (0, 10_000, -10_000, 10**9):
            monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
            assert ask(robot, jump) == jump
            assert robot.ping().wait(DEADLINE_S)


def test_nothing_reads_a_clock_that_can_jump() -> None:
    source = Path(policyserve.__file__).parent
    wall_clocks = re.compile(r"\btime\.time(_ns)?\(|datetime\.(now|utcnow)\(")
    # Files are stamped by that clock, pictures have a date, certificates end at one, recordings begin at one, and a
    # page says since when.
    may = {"engine/reloading.py", "bench/machine.py", "doctor/certificates.py", "server/live_data.py"}
    may |= {"recordings/recorder.py", "recordings/writer.py"}
    found = {
        path.relative_to(source).as_posix() for path in source.rglob("*.py") if wall_clocks.search(path.read_text())
    }
    assert found == may


def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: each line raises in its handler, and so does the complaint about that."""

    class Full:
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    handler = logging.StreamHandler(Full())  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stderr", Full())
    log = logging.getLogger("policyserve")
    log.addHandler(handler)
    monkeypatch.setattr(log, "level", logging.DEBUG)
    try:
        with serving() as live:
            peer, _ = open_raw(live)
            peer.sendall(masked(BINARY, b"\xc1"))
            assert end_of(peer)[0] == 1008
            peer.close()
            assert live.answers()
    finally:
        log.removeHandler(handler)
