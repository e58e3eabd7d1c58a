"""Servers that keep a client waiting with traffic that is no answer, and begin it where a test says."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from websockets.frames import Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from policyserve.websocket.frames import frame_header
from tests.server.live import DEADLINE_S

MiB = 1 << 20


@dataclass(frozen=True)
class Traffic:
    """What a server sends without an end: `first` once, then `more` for as long as somebody takes it."""

    first: bytes
    more: bytes


def frame(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    head = bytearray(frame_header(opcode, len(payload)))
    head[0] &= 0xFF if is_final else 0x7F
    return bytes(head) + payload


HEADER_OF_A_GIB = frame_header(0x2, 1 << 30)
# No whole message is among them, however long they go on.
NO_ANSWERS = {
    "nothing": Traffic(b"", b""),
    "pings": Traffic(b"", frame(0x9, bytes(125)) * 64),
    "small pings": Traffic(b"", frame(0x9, b"") * 4096),
    "pongs": Traffic(b"", frame(0xA, bytes(125)) * 64),
    "empty fragments": Traffic(frame(0x2, b"", is_final=False), frame(0x0, b"", is_final=False) * 4096),
    "fragments": Traffic(frame(0x2, b"a", is_final=False), frame(0x0, b"b", is_final=False) * 64),
    "pings within a message": Traffic(frame(0x2, b"a", is_final=False), frame(0x9, b"") * 64),
    "a message a byte at a time": Traffic(HEADER_OF_A_GIB, b"x"),
    "a message without an end": Traffic(HEADER_OF_A_GIB, bytes(1024)),
}
UNASKED = {
    "messages": Traffic(b"", frame(0x2, bytes(MiB))),
    "small messages": Traffic(b"", frame(0x2, b"\x80") * 4096),
    "texts": Traffic(b"", frame(0x1, b"policy_failed: no") * 64),
}


class Peer:
    """One client as its server sees it. Every method raises OSError when it is gone."""

    def __init__(self, connected: socket.socket, over: threading.Event) -> None:
        self.socket = connected
        self._over = over
        self._protocol = ServerProtocol(max_size=None)
        self._events: list[Any] = []

    def shake_hands(self) -> None:
        request = self._next()
        assert isinstance(request, Request)
        self._protocol.send_response(self._protocol.accept(request))
        self.socket.sendall(b"".join(self._protocol.data_to_send()))

    def receive(self) -> bytes:
        """The next message."""
        message = self._next()
        assert isinstance(message, Frame)
        return bytes(message.data)

    def send(self, message: Any) -> None:
        self.socket.sendall(frame(0x2, bytes(message)))

    def send_on(self, traffic: Traffic) -> None:
        """Send it for as long as the client takes it; read nothing."""
        self.socket.sendall(traffic.first)
        while traffic.more and not self._over.is_set():
            self.socket.sendall(traffic.more)
        self.wait()

    def send_slowly(self, byte: bytes) -> None:
        """Send a byte at a time, in plain, with a pause behind each."""
        while not self._over.wait(0.01):
            socket.socket.send(self.socket, byte)

    def wait(self) -> None:
        self._over.wait()

    def _next(self) -> Any:
        while not self._events:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the client is gone")
            self._protocol.receive_data(data)
            self._events += self._protocol.events_received()
        return self._events.pop(0)


class Stalling:
    """A server of one script, which each connection goes through in a thread of its own."""

    def __init__(self, script: Callable[[Peer], None], tls: ssl.SSLContext | None) -> None:
        self._script, self._tls = script, tls
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def end(self) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(DEADLINE_S)
        for peer in self._peers:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(peer)
            self._threads.append(threading.Thread(target=self._serve, args=(peer,)))
            self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            peer.settimeout(DEADLINE_S)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent is there at once
            if self._tls is None:
                self._script(Peer(peer, self._over))
                return
            with self._tls.wrap_socket(peer, server_side=True) as wrapped:
                self._peers.append(wrapped)
                self._script(Peer(wrapped, self._over))


@contextmanager
def stalling(script: Callable[[Peer], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that goes through `script` with each client; gives its port."""
    server = Stalling(script, tls)
    try:
        yield server.port
    finally:
        server.end()
