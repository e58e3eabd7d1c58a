"""What both clients do at servers that are none of ours: originals, imitated, and peers that are no policy servers."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.utils import accept_key

from policyserve.core.dialect import opening_of
from policyserve.core.errors import (
    BadAction,
    ConnectionLost,
    DeadlineExceeded,
    WireError,
    WrongDialect,
)
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import by_name
from policyserve.dialects.openpi import OpenPI
from policyserve.dialects.vibe_rl import VibeRL
from tests.contract.clients import DIALECTS, Make
from tests.plain_servers import plain_server
from tests.server.live import DEADLINE_S

X = np.array([1, 2], np.float32)


@pytest.mark.parametrize(
    "said",
    [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b"\x00" * 9_000],
)
def test_a_peer_that_is_no_policy_server_is_a_connection_lost(make: Make, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(said)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(ConnectionLost):
            make(f"ws://127.0.0.1:{listener.getsockname()[1]}", retry_for_s=0).infer({"x": X})
        speaker.join()


def test_a_peer_that_says_nothing_is_a_deadline_exceeded(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(DeadlineExceeded, match="handshake"):
        make(f"ws://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.2).infer({"x": X})


def original(peer: ServerConnection) -> None:
    """The original vibe_rl server, imitated: it answers, and closes 1000 without a word on any error."""
    wire = VibeRL()
    for message in peer:
        try:
            (x,) = wire.read_request(message).observation.values()
            assert x.shape == (2,)
        except Exception:
            return
        sent = wire.write_reply(ActionChunk(x * 2), Timing(0, 0, 1.5))
        assert isinstance(sent, bytes)
        peer.send(sent)


def test_the_original_server_is_served_by(make: Make) -> None:
    with plain_server(original) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        for _ in range(3):
            reply = client.infer({"obs": X})
            assert reply.actions.tolist() == [2, 4]
            assert reply.timing == {"latency_ms": 1.5}
        with pytest.raises(ConnectionLost, match="without an answer") as caught:
            client.infer({"obs": np.zeros(3)})
        assert caught.value.close_code == 1000
        assert client.infer({"obs": X}).actions.tolist() == [2, 4]
        client.close()


def test_an_answer_in_another_dialect_is_a_wire_error(make: Make) -> None:
    def handle(peer: ServerConnection) -> None:
        for _ in peer:
            peer.send(b"\x81\xa1a\x01")

    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        with pytest.raises(WireError):
            client.infer({"obs": X})
        client.close()


def test_a_server_that_waits_for_its_client_to_speak_is_told_from_a_slow_network(make: Make) -> None:
    with plain_server(original) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="openpi", timeout_s=0.3)
        with pytest.raises(DeadlineExceeded) as caught:
            client.infer({"obs": X})
    assert f"connected to ws://127.0.0.1:{port}/openpi, but no greeting came within 0.3 s" in str(caught.value)
    assert "its clients speak first (dialect='vibe_rl' or dialect='vla_eval'" in str(caught.value)


def greeting(peer: ServerConnection) -> None:
    """openpi's server, imitated: it greets, and answers one call after the other."""
    wire = OpenPI()
    peer.send(wire.greeting({"robot": "arm"}))
    for number, _ in enumerate(peer):
        peer.send(wire.write_reply(ActionChunk(np.array([number], np.float32)), Timing(0, 0, 1.5)))


def test_a_server_that_speaks_first_is_told_to_a_client_that_does_and_nothing_is_off_by_one(make: Make) -> None:
    with plain_server(greeting) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        for session in (1, 2):
            with pytest.raises(WrongDialect, match=r"dialect='openpi'"):
                client.infer({"obs": X})
            assert client.sessions_opened == session, "the answer that is still on its way must meet no later call"
        client.close()


def test_a_first_message_that_is_no_greeting_names_the_url_that_was_tried(make: Make) -> None:
    def handle(peer: ServerConnection) -> None:
        peer.send(b"\xc1")
        with suppress(ConnectionClosed):
            peer.recv(timeout=DEADLINE_S)

    with plain_server(handle) as port, pytest.raises(WireError) as caught:
        make(f"ws://127.0.0.1:{port}/arm", dialect="wall_x").infer({"obs": X})
    assert f"wall_x's greeting from ws://127.0.0.1:{port}/arm" in str(caught.value)
    assert "another program" in str(caught.value)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_strangers_nan_reaches_no_robot_and_the_session_goes_on(make: Make, dialect: str) -> None:
    wire: Any = by_name(dialect)

    def handle(peer: ServerConnection) -> None:
        if wire.greets:
            peer.send(wire.greeting({}))
        for _ in opening_of(wire):
            told = wire.answer_control(wire.read_message(peer.recv()), {})
            if told is not None:
                peer.send(told)
        for message in peer:
            actions = wire.read_request(message).observation["obs"]
            peer.send(wire.write_reply(ActionChunk(actions), Timing(0, 0, 1)))

    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect=dialect)
        for _ in range(4):  # later answers are read by the layout of earlier ones
            with pytest.raises(BadAction, match="got nan at \\[1\\]; check_actions=False"):
                client.infer({"obs": np.array([1, np.nan], np.float32)})
            assert client.infer({"obs": X}).actions.tolist() == [1, 2]
        assert client.sessions_opened == 1
        client.close()
        trusting = make(f"ws://127.0.0.1:{port}", dialect=dialect, check_actions=False)
        assert np.isnan(trusting.infer({"obs": np.array([np.nan])}).actions[0])
        trusting.close()


def ignore(peer: ServerConnection) -> None:
    """Hear whatever comes, and say nothing."""
    for _ in peer:
        pass


@pytest.mark.parametrize("said", [b"\xc1", "text", b"\x81\xa6prompt\xa2go"])
def test_what_is_no_answer_to_a_hello_is_told_of(make: Make, said: bytes | str) -> None:
    def handle(peer: ServerConnection) -> None:
        peer.send(said)
        ignore(peer)

    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vla_eval")
        with pytest.raises(WireError, match="as vla_eval's greeting from ws://"):
            client.infer({"obs": X})


def test_a_hello_that_nobody_answers_has_its_deadline(make: Make) -> None:
    with plain_server(ignore) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vla_eval", timeout_s=0.3)
        with pytest.raises(DeadlineExceeded, match="no greeting came within"):
            client.infer({"obs": X})


def test_a_greeting_that_is_none_leaves_no_connection_behind(make: Make) -> None:
    gone = threading.Event()

    def handle(peer: ServerConnection) -> None:
        peer.send(b"\xc1")
        with suppress(ConnectionClosed):
            peer.recv(timeout=DEADLINE_S)
        gone.set()

    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="openpi")
        with pytest.raises(WireError):
            client.infer({"obs": X})
        assert gone.wait(DEADLINE_S), "the connection is still open"
        client.close()


def test_a_server_that_does_not_read_is_a_deadline_exceeded(make: Make) -> None:
    release = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands_and_stall() -> None:
            peer, _ = listener.accept()
            with peer:
                head = peer.recv(65536).decode()
                (key,) = (line[19:] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
                upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                peer.sendall(f"{upgrade}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
                assert release.wait(DEADLINE_S)

        staller = threading.Thread(target=shake_hands_and_stall)
        staller.start()
        client = make(f"ws://127.0.0.1:{listener.getsockname()[1]}", dialect="vibe_rl", timeout_s=3)
        try:
            with pytest.raises(DeadlineExceeded):
                client.infer({"obs": np.zeros(16_000_000, np.float32)})
        finally:
            release.set()
            staller.join()
