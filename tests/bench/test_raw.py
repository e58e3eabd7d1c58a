"""The raw client's frames: what it sends, how it cuts what it gets, and what it says when a server refuses."""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.sync.server import ServerConnection

from policyserve.bench.load import Load
from policyserve.bench.raw import BINARY, CLOSE, PING, TEXT, Inbox, RawPeer, request_frame
from policyserve.bench.raw_fleet import RawFleet
from policyserve.bench.tally import Tally
from policyserve.core.errors import ConfigError, ConnectionLost, DeadlineExceeded, PolicyserveError, RemoteError
from policyserve.dialects import by_name
from policyserve.policies.fakes import EchoPolicy
from tests.plain_servers import plain_server
from tests.server.live import serving

sizes = st.one_of(st.integers(0, 300), st.integers(60_000, 70_000))
sent_frames = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([TEXT, BINARY]), sizes),
        st.tuples(st.sampled_from([CLOSE, PING]), st.integers(0, 125)),
    ),
    max_size=6,
)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_request_is_the_frame_that_websockets_would_send(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda _size: b"abcd")
    monkeypatch.setattr("secrets.token_bytes", lambda _size: b"abcd")
    payload = bytes(range(256)) * 256 + b"x"
    expected = Frame(Opcode.BINARY, payload[:size]).serialize(mask=True)
    assert request_frame(payload[:size], mask=b"abcd") == expected


@settings(deadline=None)  # byte by byte it takes long
@given(sent_frames, st.lists(st.integers(1, 60_000), min_size=1))
def test_frames_come_whole_and_in_order_however_they_are_cut(sent: list[tuple[int, int]], cuts: list[int]) -> None:
    frames = [(opcode, bytes([number]) * size) for number, (opcode, size) in enumerate(sent)]
    wire = b"".join(Frame(Opcode(opcode), payload).serialize(mask=False) for opcode, payload in frames)
    inbox, got, turn, start = Inbox(), [], 0, 0
    while start < len(wire):
        space = inbox.space()
        count = min(cuts[turn % len(cuts)], len(space), len(wire) - start)
        assert count, "there is always room for more"
        space[:count] = wire[start : start + count]
        start, turn = start + count, turn + 1
        got += [(opcode, bytes(payload)) for opcode, payload in inbox.advance(count)]
    assert got == frames


def test_a_server_of_ours_answers_raw_clients_one_and_many() -> None:
    with serving(EchoPolicy()) as server:
        for dialect in ("openpi", "wall_x", "vibe_rl", "vla_eval"):
            for clients in (1, 5):
                load = Load(f"ws://127.0.0.1:{server.port}", dialect, {"obs": np.ones(4, np.float32)}, clients)
                fleet, tally = RawFleet(load), Tally()
                fleet.drive(tally, 0.05)
                fleet.close()
                assert tally.answers >= clients
                assert not tally.errors


def test_a_raw_client_sends_a_urls_password_as_every_client_does() -> None:
    heads: list[tuple[str, str | None]] = []

    def handle(peer: ServerConnection) -> None:
        assert peer.request is not None
        heads.append((peer.request.headers["Host"], peer.request.headers.get("Authorization")))

    with plain_server(handle) as port:
        RawPeer(f"ws://robot-7:not%20a%20key@127.0.0.1:{port}", "vibe_rl", 5.0).close()
        RawPeer(f"ws://127.0.0.1:{port}", "vibe_rl", 5.0, "not-a-key").close()
    pair = b64encode(b"robot-7:not a key").decode()
    # A thread answers each of the two.
    assert {*heads} == {(f"127.0.0.1:{port}", f"Basic {pair}"), (f"127.0.0.1:{port}", "Api-Key not-a-key")}


def test_a_refusal_puts_its_client_out_and_ends_the_slice() -> None:
    with serving(EchoPolicy()) as server:
        for clients in (1, 3):
            load = Load(f"ws://127.0.0.1:{server.port}", "openpi", {"obs": np.ones(5, np.float32)}, clients)
            fleet, tally = RawFleet(load), Tally()
            fleet.drive(tally, 60.0)
            fleet.close()
            assert tally.errors == {"bad_observation": clients}
            assert tally.seconds < 30


def test_a_server_that_agreed_to_compress_gets_messages_that_it_can_read() -> None:
    got: list[bytes | str] = []

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            got.append(message)
            connection.send(bytes(100))

    with plain_server(answer) as port:
        for offers_deflate in (True, False):
            peer = RawPeer(f"ws://127.0.0.1:{port}", "vibe_rl", 5.0, offers_deflate=offers_deflate)
            frame = peer.frame({"obs": np.arange(50.0)}, "vibe_rl")
            assert bool(frame[0] & 0x40) is offers_deflate
            for _ in range(3):
                peer.exchange(frame)
            peer.close()
    assert got == [by_name("vibe_rl").write_request({"obs": np.arange(50.0)})] * 6


@contextmanager
def stranger(*messages: bytes | str | None) -> Iterator[str]:
    """A WebSocket server that sends these on connect; None: it closes with 4000. Then it waits for the client."""

    def greet(connection: ServerConnection) -> None:
        for message in messages:
            if message is None:
                connection.close(4000, "not here")
            else:
                connection.ping() if message == b"ping" else connection.send(message)
        for _ in connection:
            pass

    with plain_server(greet) as port:
        yield f"ws://127.0.0.1:{port}"


STRANGERS: dict[str, tuple[tuple[bytes | str | None, ...], type[PolicyserveError], str]] = {
    "a text": (("go away",), RemoteError, "go away"),
    "a close": ((None,), ConnectionLost, "4000 not here"),
    "silence": ((), DeadlineExceeded, "no answer from ws://"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_a_stranger_says_is_an_error_of_ours(kind: str) -> None:
    messages, error, said = STRANGERS[kind]
    with stranger(*messages) as url, pytest.raises(error, match=said):
        RawPeer(url, "openpi", 0.2)


def test_a_ping_is_answered_and_is_no_answer() -> None:
    with stranger(b"ping", b"greeting") as url:
        RawPeer(url, "openpi", 5.0).close()


def test_nobody_there_and_somebody_else_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(DeadlineExceeded, match="no handshake with ws://"):
            RawPeer(url, "openpi", 0.1)
    with pytest.raises(ConnectionLost, match="cannot connect to ws://"):
        RawPeer(url, "openpi", 0.1)
    with pytest.raises(ConfigError, match=r"a raw client speaks ws:// and ws.*leave --raw out"):
        RawPeer("wss://127.0.0.1:1", "openpi", 0.1)
