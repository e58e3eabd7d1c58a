"""A peer that sends without waiting holds nobody up: its frames are read a few at a time, and in the end it is cut."""

from __future__ import annotations

import socket

import pytest

from policyserve.server import guards
from tests.server.live import DEADLINE_S, answer, frame, masked, open_raw, read_frame, serving
from tests.server.test_hostile_peers import end_of

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FRAMES = 9_000  # what one read of the server holds of the smallest
NO_MAP = b"\x01"
FLOODS = {
    "messages of one byte": (b"", masked(BINARY, NO_MAP)),
    "pings": (b"", masked(PING, b"")),
    "pongs": (b"", masked(PONG, b"")),
    "empty fragments": (masked(BINARY, b"", fin=False), masked(CONT, b"", fin=False)),
    "fragments of one byte": (masked(BINARY, b"x", fin=False), masked(CONT, b"x", fin=False)),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_robot_is_answered_before_a_flood_is_read(kind: str) -> None:
    begin, one = FLOODS[kind]
    with serving() as live:
        flooder, _ = open_raw(live, path="/openpi")
        robot, _ = open_raw(live)
        flooder.sendall(masked(PING, b"first") + begin + one * FRAMES + masked(PING, b"last"))
        while read_frame(flooder) != (PONG, b"first"):
            pass
        robot.sendall(masked(BINARY, frame([2.0])))
        assert answer(read_frame(robot)[1]) == 2.0
        assert masked_less_pong(b"last") not in what_came(flooder)
        for peer in (flooder, robot):
            peer.close()


@pytest.mark.parametrize("kind", FLOODS)
def test_who_floods_on_is_cut_by_name(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guards, "_LONGEST_FLOOD_S", 0.0)
    begin, one = FLOODS[kind]
    with serving() as live:
        flooder, _ = open_raw(live, path="/openpi")
        flooder.sendall(begin + one * 3 * FRAMES)
        code, reason = end_of(flooder)
        assert code == 1008
        assert "frames a second" in reason
        flooder.close()
    assert caplog.text.count("frames a second") == 1


def test_many_good_requests_at_once_are_no_flood() -> None:
    """They are slowed by nothing but the policy, and each has its answer, in order."""
    count = 2_000
    with serving(max_pending=count, request_timeout_s=3600.0) as live:  # a busy machine foresees long waits
        peer, _ = open_raw(live)
        peer.sendall(b"".join(masked(BINARY, frame([float(number)])) for number in range(count)))
        assert [answer(read_frame(peer)[1]) for _ in range(count)] == list(range(count))
        peer.close()


def test_what_came_before_the_close_frame_is_answered_first() -> None:
    with serving() as live:
        peer, _ = open_raw(live)
        peer.sendall(masked(PING, b"x") * 100 + masked(CLOSE, b"\x03\xe8"))
        peer.shutdown(socket.SHUT_WR)
        assert [read_frame(peer) for _ in range(101)] == [(PONG, b"x")] * 100 + [(CLOSE, b"\x03\xe8")]
        peer.close()


def test_a_flooder_that_goes_leaves_nothing() -> None:
    with serving() as live:
        flooder, _ = open_raw(live, path="/openpi")
        flooder.sendall(masked(PING, b"first") + masked(PONG, b"") * 600)
        while read_frame(flooder) != (PONG, b"first"):
            pass
        flooder.close()
        live.until(lambda server: not server.reception.peers)
        assert live.complaints == []


def masked_less_pong(payload: bytes) -> bytes:
    """A server's pong."""
    return bytes([0x80 | PONG, len(payload)]) + payload


def what_came(peer: socket.socket) -> bytes:
    """What stands in a peer's socket now."""
    peer.setblocking(False)
    got = b""
    try:
        while piece := peer.recv(1 << 20):
            got += piece
    except BlockingIOError:
        pass
    peer.settimeout(DEADLINE_S)
    return got
