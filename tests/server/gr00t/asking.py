"""Clients of GR00T's port: a REQ socket as the originals have it, and bare TCP that speaks ZeroMQ's wire by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import msgpack
import numpy as np

from policyserve import FunctionPolicy
from policyserve.dialects.gr00t.spellings import NPY
from policyserve.dialects.unpacking import unpack
from tests.policies.frameworks import import_or_skip
from tests.server.live import DEADLINE_S, Live

zmq = import_or_skip("zmq")


def echo(function: Any = lambda x: x) -> FunctionPolicy:
    """A policy whose two steps are the state, and what a function makes of it."""
    return FunctionPolicy(lambda seen: np.stack([seen["state"]["x"], function(seen["state"]["x"])]))


def packed(message: Any) -> bytes:
    sent = msgpack.packb(message, default=NPY.write)
    assert isinstance(sent, bytes)
    return sent


def asking(x: float, **beside: Any) -> bytes:
    """N1.6's request for an echo."""
    data = {"observation": {"state": {"x": np.full((1, 1, 1), x, np.float32)}}, "options": None}
    return packed({"endpoint": "get_action", "data": data, **beside})


def unpacked(message: bytes) -> Any:
    return NPY.unmark({"all": unpack(message, texts=True)})["all"]


def echoed(message: bytes) -> float:
    """The number in an answer."""
    groups, _ = unpacked(message)
    assert groups["action"].shape == (1, 2, 1)
    return float(groups["action"][0, 0, 0])


def error_in(message: bytes) -> str:
    found = unpacked(message)
    assert isinstance(found, Mapping), found
    return str(found["error"])


class Asker:
    """A ZeroMQ client with a context of its own. kind: REQ, which waits for each answer, or DEALER, which does not."""

    def __init__(self, url: str, kind: int = zmq.REQ, **options: Any) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(kind)
        self.socket.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        self.socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(url)

    def ask(self, message: bytes) -> bytes:
        self.socket.send(message)
        return self.answer()

    def answer(self) -> bytes:
        received = self.socket.recv_multipart()
        assert len(received) in (1, 2), received  # a DEALER sees the empty part
        return received[-1]

    def close(self) -> None:
        self.socket.close()
        self._context.term()


@contextmanager
def asker(live: Live, **options: Any) -> Iterator[Asker]:
    """A client of a live server's GR00T port."""
    made = Asker(url_of(live), **options)
    try:
        yield made
    finally:
        made.close()


def url_of(live: Live) -> str:
    port = live.server.gr00t
    assert port is not None
    return port.url


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03REQ"
READY = b"\x04" + bytes([len(_READY)]) + _READY
HELLO = GREETING + READY
_ITS_READY = 43  # bytes


def tcp(live: Live) -> socket.socket:
    """A TCP connection to the port."""
    port = live.server.gr00t
    assert port is not None
    peer = socket.create_connection(("127.0.0.1", port.port))
    peer.settimeout(DEADLINE_S)
    return peer


def by_hand(live: Live) -> socket.socket:
    """A TCP connection whose handshake is through, as ZeroMQ has it: each waits for the other's first bytes."""
    peer = tcp(live)
    for said, count in ((GREETING, len(GREETING)), (READY, _ITS_READY)):
        peer.sendall(said)
        exactly(peer, count)
    return peer


def exactly(peer: socket.socket, count: int) -> bytes:
    """So many bytes of what the server sends."""
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        assert more, data
        data += more
    return data


def until_cut(peer: socket.socket) -> None:
    """Read until the server ends the connection."""
    with suppress(ConnectionError):
        while peer.recv(65536):  # a time-out fails the test
            pass


def serves(live: Live) -> bool:
    """Whether a new client gets a right answer."""
    with asker(live) as one:
        return echoed(one.ask(asking(41.0))) == 41.0
