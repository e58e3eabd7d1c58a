"""A connection without a socket: what it answers by itself, and how it ends."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from policyserve.client.connection import Wire
from policyserve.core.errors import ConnectionLost, RemoteError


class Pair:
    """A Wire and websockets' own server, joined."""

    def __init__(self) -> None:
        self.wire = Wire(lambda count: bytes(range(256)) * (count // 256 + 1))
        self.server = ServerProtocol(state=State.OPEN, max_size=None)

    def speak(self) -> None:
        """The server's words reach the wire."""
        self.wire.feed(b"".join(self.server.data_to_send()))

    def heard(self) -> list[tuple[Opcode, bytes]]:
        """What the wire answered by itself."""
        self.server.receive_data(self.wire.unsent)
        self.wire.unsent = b""
        return [
            (event.opcode, bytes(event.data)) for event in self.server.events_received() if isinstance(event, Frame)
        ]


def test_a_ping_is_answered_and_no_message() -> None:
    pair = Pair()
    pair.server.send_ping(b"are you there?")
    pair.speak()
    assert pair.heard() == [(Opcode.PONG, b"are you there?")]
    assert pair.wire.take() is None


def test_our_ping_is_answered_behind_what_the_server_said_before() -> None:
    pair = Pair()
    pair.server.send_text(b"policy_failed: the arm fell off")
    pair.server.receive_data(pair.wire.ping())
    pair.speak()
    assert pair.wire.pongs == 1
    assert not pair.wire.is_silent
    assert pair.wire.take() == "policy_failed: the arm fell off"
    assert pair.wire.is_silent


def test_a_message_before_a_close_is_not_lost() -> None:
    pair = Pair()
    pair.server.send_binary(b"answer")
    pair.server.send_close(1011, "the arm fell off")
    pair.speak()
    message = pair.wire.take()
    assert isinstance(message, memoryview)
    assert bytes(message) == b"answer"
    with pytest.raises(RemoteError, match=r"the arm fell off \(close code 1011\)") as caught:
        pair.wire.take()
    assert not isinstance(caught.value, ConnectionLost)
    assert pair.heard() == [(Opcode.CLOSE, struct.pack(">H", 1011) + b"the arm fell off")]


@pytest.mark.parametrize("code", [1000, 1001, 1012])
def test_a_server_that_goes_is_a_lost_connection(code: int) -> None:
    pair = Pair()
    pair.server.send_close(code, "bye")
    pair.speak()
    with pytest.raises(ConnectionLost, match=f"without an answer \\({code} bye\\)"):
        pair.wire.take()


def test_an_end_without_a_close_frame_is_a_lost_connection() -> None:
    pair = Pair()
    pair.wire.advance(0)
    with pytest.raises(ConnectionLost, match="no close frame"):
        pair.wire.take()


def test_the_first_reason_of_an_end_stays() -> None:
    pair = Pair()
    pair.server.send_close(1008, "x: expected float32 (2,)")
    pair.speak()
    pair.wire.on_lost("reset by peer")
    with pytest.raises(RemoteError, match="expected float32"):
        pair.wire.take()


def test_a_server_that_breaks_the_protocol_is_told_and_left() -> None:
    pair = Pair()
    pair.wire.feed(b"\xc2\x00")
    with pytest.raises(ConnectionLost, match="broke the WebSocket protocol: reserved bits"):
        pair.wire.take()
    assert pair.heard()[0][1][:2] == struct.pack(">H", 1002)


def test_behind_our_close_nothing_is_sent() -> None:
    pair = Pair()
    pair.server.receive_data(pair.wire.close())
    pair.server.send_ping(b"")
    pair.speak()
    assert pair.wire.unsent == b""
    assert pair.wire.end is not None


def test_a_request_is_one_binary_message() -> None:
    pair = Pair()
    image = np.arange(600_000, dtype=np.uint32).view(np.uint8)
    for piece in pair.wire.request([b"head", image.data, b"tail"]):
        pair.server.receive_data(bytes(piece))
    (message,) = pair.server.events_received()
    assert isinstance(message, Frame)
    assert message.opcode is Opcode.BINARY
    assert bytes(message.data) == b"head" + image.tobytes() + b"tail"
