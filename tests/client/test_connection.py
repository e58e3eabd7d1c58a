"""A connection without a socket: what it answers by itself, and how it ends."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from policyserve.client.connection import Silence, Wire
from policyserve.core.errors import ConnectionLost, RemoteError


class Pair:
    """A Wire and websockets' own server, joined."""

    def __init__(self) -> None:
        self.wire = Wire(lambda count: bytes(range(256)) * (count // 256 + 1))
        self.server = ServerProtocol(state=State.OPEN, max_size=None)

    def speak(self) -> None:
        """The server's words reach the wire."""
        self.wire.feed(b"".join(self.server.data_to_send()))

    def taken(self) -> bytes | None:
        """The next message, which is no text."""
        message = self.wire.take()
        assert not isinstance(message, str)
        return None if message is None else bytes(message)

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


def test_of_pings_that_came_together_the_newest_is_answered() -> None:
    pair = Pair()
    for number in range(5_000):
        pair.server.send_ping(b"%d" % number)
        if number % 1_000 == 998:
            pair.speak()
    pair.speak()
    assert pair.heard() == [(Opcode.PONG, b"4999")], "nobody has sent the others: a newer one took their place"


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


def test_messages_that_come_behind_our_close_are_dropped_and_are_an_end_when_they_are_many() -> None:
    pair = Pair()
    pair.server.send_binary(b"before")
    pair.speak()
    pair.wire.feed(b"\x89\x00")
    pair.wire.close()
    assert pair.wire.unsent == b""
    assert pair.wire.is_silent
    read = 0
    while pair.wire.end is None:
        pair.server.send_binary(bytes(1000))
        data = b"".join(pair.server.data_to_send())
        pair.wire.get_buffer()[: len(data)] = data
        pair.wire.advance(len(data))
        read += len(data)
        assert pair.wire.is_silent
        assert not pair.wire.has_unasked, "the server's close frame may come behind it"
    assert read < 1 << 21


def test_one_message_more_than_is_awaited_is_kept_to_tell_of_it_and_no_others() -> None:
    pair = Pair()
    pair.wire.request([b"?"])
    for number in range(1_000):
        pair.server.send_binary(b"%d" % number)
        pair.speak()
        assert pair.wire.has_unasked == (number > 0)
    assert [pair.taken() for _ in range(3)] == [b"0", b"1", None]


@pytest.mark.parametrize("sent", [1, 2, 5, 20])
def test_a_message_that_begins_unasked_is_noticed_from_its_first_byte(sent: int) -> None:
    pair = Pair()
    pair.server.send_binary(bytes(100))
    pair.wire.feed(b"".join(pair.server.data_to_send())[:sent])
    assert pair.wire.is_silent
    assert not pair.wire.is_quiet
    assert pair.wire.has_unasked


def test_a_message_that_the_connection_ended_in_is_no_message() -> None:
    pair = Pair()
    pair.wire.feed(b"\x82\x02a")
    pair.wire.advance(0)
    assert pair.wire.is_quiet


def test_half_a_ping_is_no_message() -> None:
    pair = Pair()
    pair.wire.feed(b"\x89\x04ab")
    assert pair.wire.is_quiet
    assert not pair.wire.has_unasked


def test_an_answer_that_begins_is_awaited_until_it_is_taken() -> None:
    pair = Pair()
    pair.wire.request([b"?"])
    pair.wire.feed(b"\x82\x02a")
    assert not pair.wire.has_unasked
    pair.wire.feed(b"b\x82")
    assert pair.wire.has_unasked, "another one begins"
    assert pair.taken() == b"ab"
    assert not pair.wire.is_quiet


def test_a_request_is_one_binary_message() -> None:
    pair = Pair()
    image = np.arange(600_000, dtype=np.uint32).view(np.uint8)
    for piece in pair.wire.request([b"head", image.data, b"tail"]):
        pair.server.receive_data(bytes(piece))
    (message,) = pair.server.events_received()
    assert isinstance(message, Frame)
    assert message.opcode is Opcode.BINARY
    assert bytes(message.data) == b"head" + image.tobytes() + b"tail"


def test_a_silent_server_is_asked_for_a_pong_before_it_counts_as_dead() -> None:
    silence = Silence(3.0)
    silence.begin(10.0)
    assert silence.until == math.inf, "before its first answer it may be compiling"
    silence.is_known = True
    silence.begin(10.0)
    assert silence.until == 11.0
    assert not silence.is_death(11.0)
    assert silence.until == 13.0
    assert silence.is_death(13.0)
    silence.begin(12.5)
    assert silence.until == 13.5, "it was heard"


def test_a_silence_without_a_bound_has_none() -> None:
    silence = Silence(None)
    silence.is_known = True
    silence.begin(10.0)
    assert silence.until == math.inf
