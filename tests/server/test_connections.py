"""Peers as they are: they vanish, stall, split their messages, pipeline, and come before the policy is there."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from policyserve.core.errors import ConfigError
from policyserve.core.policy import ActionChunk, FunctionPolicy, Policy, as_policy, open_spec
from policyserve.dialects import by_name
from policyserve.server.server import Server
from tests.server.live import (
    DEADLINE_S,
    HANDSHAKE,
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

TEXT, BINARY, CLOSE, PING, PONG, CONT = 1, 2, 8, 9, 10, 0


class Gate:
    """A policy call that waits until the test lets it through; it echoes."""

    def __init__(self) -> None:
        self.calls = 0
        self.started = threading.Event()
        self.release = threading.Event()

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        self.started.set()
        assert self.release.wait(DEADLINE_S)
        return x


def reset(peer: socket.socket) -> None:
    """End a connection as a robot that lost power would: no close frame, no orderly end."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


# Vanishing


@pytest.mark.parametrize("vanish", [reset, socket.socket.close], ids=["reset", "close"])
@pytest.mark.parametrize("sent", [b"", masked(BINARY, frame([1.0]))[:10], masked(BINARY, frame([1.0]))[:1]])
def test_a_client_that_vanishes_mid_frame_is_forgotten(vanish: Callable[[socket.socket], None], sent: bytes) -> None:
    with serving() as live:
        peer, _ = open_raw(live)
        peer.sendall(sent)
        live.until(lambda server: server.counters.sessions_open == 1)
        vanish(peer)
        none_open(live)
        assert live.answers()


@pytest.mark.parametrize("vanish", [reset, socket.socket.close], ids=["reset", "close"])
def test_a_client_that_vanishes_mid_inference_costs_nobody_else(vanish: Callable[[socket.socket], None]) -> None:
    gate = Gate()
    with serving(gate) as live:
        peer, _ = open_raw(live)
        for _ in range(10):
            peer.sendall(masked(BINARY, frame([1.0])))
        assert gate.started.wait(DEADLINE_S)
        with live.websocket() as other:
            other.send(frame([5.0]))
            vanish(peer)
            live.until(lambda server: server.counters.sessions_open == 1)
            gate.release.set()
            assert answer(other.recv(timeout=DEADLINE_S)) == 5.0
        none_open(live)
        assert gate.calls == 2  # the nine that waited were dropped with their session


def test_a_client_that_vanishes_before_the_reply_is_forgotten() -> None:
    with serving() as live:
        for _ in range(20):
            peer, _ = open_raw(live)
            peer.sendall(masked(BINARY, frame([1.0])))
            reset(peer)
        none_open(live)
        assert live.answers()


def test_a_sessions_policy_state_goes_with_its_connection() -> None:
    class Counter:
        spec = open_spec("counter")

        def infer(self, batch: Any) -> Any:
            counts = [(one.state or 0) + 1 for one in batch]
            return [ActionChunk(np.array([count], np.float32), state=count) for count in counts]

        def close(self) -> None: ...

    with serving(Counter()) as live:
        with live.websocket() as first, live.websocket() as second:
            assert [ask(first, 0), ask(first, 0), ask(second, 0), ask(first, 0)] == [1, 2, 1, 3]
        with live.websocket() as again:
            assert ask(again, 0) == 1


def test_a_client_that_closes_properly_gets_its_close_frame_back() -> None:
    with serving() as live:
        peer, _ = open_raw(live)
        peer.sendall(masked(CLOSE, b"\x03\xe8bye"))
        assert read_frame(peer) == (CLOSE, b"\x03\xe8bye")
        assert until_eof(peer) == b""
        peer.close()


# Frames


def test_a_fragmented_message_is_one_request() -> None:
    sent = frame(np.arange(100))
    with serving(lambda x: x[-1:]) as live:
        peer, _ = open_raw(live)
        pieces = [sent[start : start + 7] for start in range(0, len(sent), 7)]
        for index, piece in enumerate(pieces):
            peer.sendall(masked(BINARY if index == 0 else CONT, piece, fin=index == len(pieces) - 1))
            if index == 3:
                peer.sendall(masked(PING, b"between"))
                assert read_frame(peer) == (PONG, b"between")
        opcode, payload = read_frame(peer)
        assert (opcode, answer(payload)) == (BINARY, 99.0)
        peer.sendall(masked(BINARY, frame([7.0])))
        assert answer(read_frame(peer)[1]) == 7.0
        peer.close()


def test_a_hundred_empty_fragments_are_one_message() -> None:
    with serving() as live:
        peer, _ = open_raw(live)
        peer.sendall(masked(BINARY, b"", fin=False))
        peer.sendall(masked(CONT, b"", fin=False) * 100)
        peer.sendall(masked(PING, b"there?"))
        assert read_frame(peer) == (PONG, b"there?")
        sent = frame([3.0])
        peer.sendall(masked(CONT, sent[:5], fin=False) + masked(CONT, sent[5:]))
        assert answer(read_frame(peer)[1]) == 3.0
        peer.close()


def test_a_length_that_lies_is_refused_before_its_bytes_come() -> None:
    with serving() as live:
        peer, _ = open_raw(live)
        peer.sendall(masked(BINARY, b"", length=1 << 62))
        opcode, payload = read_frame(peer)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1009)
        assert len(payload) <= 125
        peer.close()
        none_open(live)


def test_fragments_beyond_the_limit_are_refused() -> None:
    with serving(max_frame_mib=0.001) as live:
        peer, _ = open_raw(live)
        peer.sendall(masked(BINARY, bytes(700), fin=False) + masked(CONT, bytes(700), fin=False))
        opcode, payload = read_frame(peer)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1009)
        peer.close()
        assert live.answers()


@pytest.mark.parametrize(
    "sent",
    [
        bytes([0x82, 1, 0]),  # not masked
        masked(3, b""),  # a reserved opcode
        masked(CONT, b"x"),  # continues nothing
        masked(BINARY, b"x", fin=False) + masked(BINARY, b"x"),  # a message within a message
        masked(PING, bytes(126)),  # a control frame too long
        bytes([0xC2, 0x80]) + bytes(4),  # a compressed frame, which nobody negotiated
        masked(CLOSE, b"\x00"),
    ],
)
def test_a_broken_frame_ends_its_connection_alone(sent: bytes) -> None:
    with serving() as live, live.websocket() as other:
        peer, _ = open_raw(live)
        peer.sendall(sent)
        opcode, payload = read_frame(peer)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1002)
        peer.close()
        assert ask(other, 1.0) == 1.0


def test_deflate_is_never_negotiated() -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    with serving() as live:
        peer, head = open_raw(live, offer)
        assert b"101" in head.splitlines()[0]
        assert b"extensions" not in head.lower()
        peer.close()
        with live.websocket(compression="deflate") as client:
            assert client.protocol.extensions == []
            assert ask(client, 1.0) == 1.0


def test_a_request_in_the_same_packet_as_the_handshake_is_answered() -> None:
    with serving() as live, live.tcp() as peer:
        peer.sendall(HANDSHAKE + b"\r\n" + masked(BINARY, frame([6.0])))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.recv(1)
        assert answer(read_frame(peer)[1]) == 6.0


# Many requests


def test_pings_are_answered_while_a_call_blocks() -> None:
    gate = Gate()
    with serving(gate) as live, live.websocket() as peer:
        peer.send(frame([1.0]))
        assert gate.started.wait(DEADLINE_S)
        assert peer.ping().wait(DEADLINE_S)
        gate.release.set()
        assert answer(peer.recv(timeout=DEADLINE_S)) == 1.0


def test_a_session_that_pipelines_two_hundred_requests_holds_nobody_up() -> None:
    """Counted in calls: the newcomer is served by the very next one."""
    gate = Gate()
    order: list[float] = []

    def note(x: Any) -> Any:
        order.append(float(x[0]))
        return gate(x)

    with serving(note) as live, live.websocket() as greedy, live.websocket() as other:
        for number in range(200):
            greedy.send(frame([number]))
        live.until(lambda server: server.engine.load == 200)
        other.send(frame([-1.0]))
        live.until(lambda server: server.engine.load == 201)
        gate.release.set()
        assert answer(other.recv(timeout=DEADLINE_S)) == -1.0
        assert [answer(greedy.recv(timeout=DEADLINE_S)) for _ in range(200)] == list(range(200))
    assert order.index(-1.0) == 1


def test_a_session_with_too_many_requests_is_refused_after_its_answers() -> None:
    gate = Gate()
    with serving(gate, max_pending=4) as live, live.websocket() as peer, live.websocket() as other:
        for number in range(5):
            peer.send(frame([number]))
        other.send(frame([9.0]))
        live.until(lambda server: server.reception.conversations[0].session.pending == 5)
        gate.release.set()
        assert [answer(peer.recv(timeout=DEADLINE_S)) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(ConnectionClosed) as caught:
            peer.recv(timeout=DEADLINE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1013
        assert answer(other.recv(timeout=DEADLINE_S)) == 9.0


def test_a_full_queue_refuses_with_1013() -> None:
    gate = Gate()
    with serving(gate, max_queue=1) as live, live.websocket() as first, live.websocket() as second:
        first.send(frame([1.0]))
        assert gate.started.wait(DEADLINE_S)
        second.send(frame([2.0]))
        live.until(lambda server: server.engine.load == 2)
        with live.websocket() as third:
            third.send(frame([3.0]))
            with pytest.raises(ConnectionClosed) as caught:
                third.recv(timeout=DEADLINE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1013
        gate.release.set()
        assert answer(first.recv(timeout=DEADLINE_S)) == 1.0
        assert answer(second.recv(timeout=DEADLINE_S)) == 2.0


def test_a_request_without_an_answer_in_time_closes_1013() -> None:
    """The one that the policy works on, and the one behind it."""
    gate = Gate()
    with serving(gate, request_timeout_s=0.5) as live, live.websocket() as first, live.websocket() as second:
        first.send(frame([1.0]))
        assert gate.started.wait(DEADLINE_S)
        second.send(frame([2.0]))
        for client in (first, second):
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(timeout=DEADLINE_S)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1013
        gate.release.set()


def big_policy() -> Policy:
    """Answers four megabytes to anything."""
    return FunctionPolicy(lambda x: np.full(1_000_000, x[0], np.float32), open_spec("big"))


def test_a_slow_reader_gets_all_its_answers_and_holds_nobody_up() -> None:
    with serving(big_policy()) as live:
        slow, _ = open_raw(live)
        for number in range(16):
            slow.sendall(masked(BINARY, frame([number])))
        with live.websocket() as other:
            for number in range(3):
                assert ask(other, number) == number
        for number in range(16):
            assert answer(read_frame(slow)[1]) == number
        slow.close()


def unread(server: Server) -> int:
    """Bytes of answers that no socket has taken yet."""
    return sum(one.held_bytes() for one in server.reception.peers)


def has_answered_more(than: int, server: Server) -> bool:
    return server.counters.requests > than


@pytest.mark.parametrize("end", ["half close", "close frame", "bad frame"])
def test_a_peer_that_ends_without_reading_is_cut_off(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers fill every buffer: the server must not keep the session for as long as the peer lives."""
    monkeypatch.setattr("policyserve.server.connection._CLOSE_TIMEOUT_S", 0.1)
    with serving(lambda x: np.zeros(int(x[0]), np.float32)) as live:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(DEADLINE_S)
        peer.connect(("127.0.0.1", live.port))
        peer.sendall(HANDSHAKE + b"\r\n")
        # Until an answer waits in the server: so small a one that it goes on reading.
        while not live.call(lambda: unread(live.server)):
            answered = live.server.counters.requests
            peer.sendall(masked(BINARY, frame([4_000])))
            live.until(partial(has_answered_more, answered))
        if end == "half close":
            peer.shutdown(socket.SHUT_WR)
        else:
            peer.sendall(masked(CLOSE, b"\x03\xe8") if end == "close frame" else masked(3, b""))
        none_open(live)
        peer.close()


# Before the policy is there


def test_a_client_that_comes_early_waits_and_is_served() -> None:
    release = threading.Event()

    def load(_: Callable[[str], None]) -> Policy:
        assert release.wait(DEADLINE_S)
        return as_policy(lambda x: x)

    with serving(load=load) as live, live.websocket() as peer, live.websocket() as silent:
        for number in range(3):
            peer.send(frame([number]))
        assert peer.ping().wait(DEADLINE_S)
        release.set()
        assert [answer(peer.recv(timeout=DEADLINE_S)) for _ in range(3)] == [0, 1, 2]
        assert ask(silent, 4.0) == 4.0


def test_clients_are_told_why_when_loading_fails_those_that_waited_and_those_that_come_later() -> None:
    release = threading.Event()

    def load(_: Callable[[str], None]) -> Policy:
        assert release.wait(DEADLINE_S)
        raise ConfigError("no checkpoint in /data")

    def reason(peer: Any) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as caught:
            peer.recv(timeout=DEADLINE_S)
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code, caught.value.rcvd.reason

    with serving(load=load) as live:
        with live.websocket() as early:
            early.send(frame([1.0]))
            release.set()
            code, told = reason(early)
        assert code in (1011, 1013)
        assert "no checkpoint in /data" in told
        with pytest.raises(ConfigError):
            live.ready()
        with live.websocket() as late:
            assert reason(late) == (code, told)
        assert live.http("GET", "/healthz")[0] == 200
        assert live.http("GET", "/readyz")[0] == 503


# Dialects that nobody named


@pytest.mark.parametrize("path", ["/", "/anything"])
def test_a_vibe_rl_client_is_known_by_its_first_frame(path: str) -> None:
    with serving() as live, live.websocket(path) as peer:
        assert ask(peer, 3.0) == 3.0


def test_silence_is_greeted() -> None:
    with serving(hello_grace_ms=10.0) as live, live.websocket("/") as peer:
        assert isinstance(peer.recv(timeout=DEADLINE_S), bytes)
        peer.send(frame([1.0]))
        with pytest.raises(ConnectionClosed) as caught:
            peer.recv(timeout=DEADLINE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008
        assert "/vibe_rl" in caught.value.rcvd.reason


def test_silence_where_the_client_speaks_first_is_told() -> None:
    with serving(first_frame_timeout_s=0.05) as live, live.websocket("/vibe_rl") as peer:
        with pytest.raises(ConnectionClosed) as caught:
            peer.recv(timeout=DEADLINE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008
        assert "speaks first" in caught.value.rcvd.reason


def test_a_silent_peer_is_pinged_and_in_the_end_cut_off() -> None:
    with serving(ping_interval_s=0.05, ping_timeout_s=0.3) as live:
        peer, _ = open_raw(live)
        assert read_frame(peer)[0] == PING
        while peer.recv(4096):
            pass  # more pings, never answered
        none_open(live)
        peer.close()


def test_a_peer_that_answers_pings_is_kept() -> None:
    with serving(ping_interval_s=0.05, ping_timeout_s=1.0) as live:
        peer, _ = open_raw(live)
        for _ in range(30):  # longer than the time-out
            opcode, payload = read_frame(peer)
            assert opcode == PING
            peer.sendall(masked(PONG, payload))
        peer.sendall(masked(BINARY, frame([1.0])))
        while (received := read_frame(peer))[0] == PING:
            peer.sendall(masked(PONG, received[1]))
        assert answer(received[1]) == 1.0
        peer.close()


def test_a_picture_of_zeros_and_ones_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    request = by_name("openpi").write_request({"view": np.ones((4, 4, 3), np.uint8)})
    with serving(lambda observation: np.zeros(1)) as live, live.websocket("/openpi") as peer:
        peer.recv(timeout=DEADLINE_S)
        for _ in range(3):
            peer.send(request)
            peer.recv(timeout=DEADLINE_S)
    lines = [record.getMessage() for record in caplog.records if "0 and 1 alone" in record.getMessage()]
    assert len(lines) == 1
    assert "'view'" in lines[0]


def test_a_client_that_sends_without_end_is_held_back_and_then_answered() -> None:
    """Beyond its bound it is refused, beyond twice that its bytes stay in the socket; nothing is lost or reordered."""
    started, release = threading.Event(), threading.Event()

    def slow(observation: Any) -> Any:
        started.set()
        assert release.wait(DEADLINE_S)
        return observation["obs"]

    def most_pending(server: Server) -> int:
        return max(each.session.pending for each in server.reception.conversations)

    total, bound = 2_000, 10
    with serving(slow, max_pending=bound, dialect="openpi") as live:
        peer, _ = open_raw(live, path="/openpi")
        read_frame(peer)  # the greeting
        request = by_name("openpi").write_request({"obs": np.zeros(1, np.float32)})
        assert isinstance(request, bytes)
        peer.sendall(masked(BINARY, request))
        assert started.wait(DEADLINE_S)
        sender = threading.Thread(target=lambda: peer.sendall(masked(BINARY, request) * (total - 1)))
        sender.start()
        live.until(lambda server: most_pending(server) > 2 * bound)
        assert live.call(lambda: most_pending(live.server)) < total  # type: ignore[arg-type]
        release.set()
        opcodes = [read_frame(peer)[0] for _ in range(total)]
        sender.join(DEADLINE_S)
        assert opcodes.count(BINARY) >= bound
        assert opcodes.count(TEXT) >= bound
        assert opcodes.count(BINARY) + opcodes.count(TEXT) == total
        peer.close()
