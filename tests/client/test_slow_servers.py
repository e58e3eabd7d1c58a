"""A server that takes a large request slowly: whatever the socket does not take at once must arrive as it was."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from policyserve import AsyncClient, Client
from policyserve.core.errors import ConnectionLost
from tests.policies.frameworks import needs_uvloop
from tests.server.live import DEADLINE_S

Ask = Callable[[str, dict[str, Any]], None]


def ask_blocking(url: str, observation: dict[str, Any]) -> None:
    Client(url, dialect="vibe_rl").infer(observation)


async def ask_async(url: str, observation: dict[str, Any]) -> None:
    await AsyncClient(url, dialect="vibe_rl").infer(observation)


def ask_in_asyncio(url: str, observation: dict[str, Any]) -> None:
    asyncio.run(ask_async(url, observation))


def ask_in_uvloop(url: str, observation: dict[str, Any]) -> None:
    import uvloop

    uvloop.run(ask_async(url, observation))


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """One that takes little at a time, and its URL."""
    if request.param == "unix":
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("no Unix sockets here")
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
            made.listen()
            yield made, f"ws+unix://{path}"
        return
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        yield made, f"ws://127.0.0.1:{made.getsockname()[1]}"


def read_slowly(listener: socket.socket) -> bytes:
    """Take one connection's first message, and end it without an answer."""
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(DEADLINE_S)
        server, asked = ServerProtocol(max_size=None), None
        while asked is None:
            server.receive_data(peer.recv(65536))
            asked = next(iter(server.events_received()), None)
        assert isinstance(asked, Request)
        server.send_response(server.accept(asked))
        peer.sendall(b"".join(server.data_to_send()))
        while not (frames := server.events_received()):
            server.receive_data(peer.recv(10_000))
        (frame,) = frames
        assert isinstance(frame, Frame)
        return bytes(frame.data)


@pytest.mark.parametrize("ask", [ask_blocking, ask_in_asyncio, pytest.param(ask_in_uvloop, marks=needs_uvloop)])
def test_large_requests_arrive_whole_at_a_server_that_reads_slowly(
    ask: Ask, listener: tuple[socket.socket, str]
) -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 255, 12_000_000, np.uint8)
    turned = rng.integers(0, 255, (1000, 3000), np.uint8).T  # not in the order of its memory
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(read_slowly(listener[0])))
    reader.start()
    with pytest.raises(ConnectionLost):
        ask(listener[1], {"whole": whole, "small": np.arange(3.0), "turned": turned})
    reader.join(DEADLINE_S)
    (message,) = read
    for array in (whole, np.arange(3.0), turned):
        assert array.tobytes() in message
