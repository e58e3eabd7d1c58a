"""A server that misbehaves towards its clients, a program of its own: prints its port, serves until it is killed.

A client asks for a misdeed by its URL's path, `ws://127.0.0.1:PORT/silence`. Nothing but Python is needed, so that it
starts at once; the few messages of openpi's dialect that it sends are written out.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_GREETING = b"\x82\x04\x81\xa1a\x01"
_ACTIONS = b"\x81\xa7actions\x91\xcb" + bytes(8)
_ANSWER = bytes((0x82, len(_ACTIONS))) + _ACTIONS
_BEGINNING = b"\x02\x00"  # of a message in fragments
_EMPTY, _PING, _PONG = b"\x00\x00", b"\x89\x7d" + bytes(125), b"\x8a\x00"
_PIECE_BYTES, _MANY_BYTES, _MESSAGE_BYTES = 4096, 1 << 16, 1 << 20
_TICK_S = 0.01  # between the bytes of a drip


def _frame(first: int, payload: bytes) -> bytes:
    return bytes((first, 127)) + len(payload).to_bytes(8, "big") + payload


def without_end(data: bytes, peer: socket.socket, beginning: bytes = b"") -> None:
    """The same bytes for as long as the client takes them."""
    many = data * (_MANY_BYTES // len(data))
    peer.sendall(beginning)
    while True:
        peer.sendall(many)


def drip(beginning: bytes, peer: socket.socket) -> None:
    """A byte at a time."""
    peer.sendall(beginning)
    while True:
        peer.sendall(b"a")
        time.sleep(_TICK_S)


def silence(peer: socket.socket) -> None:
    while peer.recv(1 << 16):
        pass


def a_message_without_end(peer: socket.socket) -> None:
    """Half a gigabyte is announced, and comes in small pieces."""
    peer.sendall(bytes((0x82, 127)) + (1 << 29).to_bytes(8, "big"))
    while True:
        peer.sendall(bytes(_PIECE_BYTES))
        time.sleep(_TICK_S / 10)


def more_than_was_asked_for(peer: socket.socket) -> None:
    """The answer, and then messages for as long as the client takes them."""
    peer.sendall(_ANSWER)
    more = _frame(0x82, bytes(_MESSAGE_BYTES))
    while True:
        peer.sendall(more)


def a_long_error(peer: socket.socket) -> None:
    """An error of a megabyte, which drives a terminal."""
    peer.sendall(_frame(0x81, b"policy_failed: \x1b[2J\xc2\x9b31m\r\n" + b"x" * _MESSAGE_BYTES))
    silence(peer)


def no_end(peer: socket.socket) -> None:
    """The answer, and pings instead of the close frame that the client waits for."""
    peer.sendall(_ANSWER)
    without_end(_PING, peer)


# Before the handshake's answer is whole; in the place of a greeting; in the place of an answer.
INSTEAD_OF_A_HANDSHAKE: dict[str, Callable[[socket.socket], None]] = {
    "a handshake without end": partial(drip, b"HTTP/1.1 101 Switching Protocols\r\nX: "),
    "silence instead of a handshake": silence,
}
INSTEAD_OF_A_GREETING: dict[str, Callable[[socket.socket], None]] = {
    "pings instead of a greeting": partial(without_end, _PING),
    "empty fragments instead of a greeting": partial(without_end, _EMPTY, beginning=_BEGINNING),
}
INSTEAD_OF_AN_ANSWER: dict[str, Callable[[socket.socket], None]] = {
    "silence": silence,
    "pings without end": partial(without_end, _PING),
    "pongs without end": partial(without_end, _PONG),
    "empty fragments without end": partial(without_end, _EMPTY, beginning=_BEGINNING),
    "an answer of a byte at a time": partial(drip, b"\x82\x7e\x40\x00"),
    "a message without end": a_message_without_end,
    "messages that nobody asked for": more_than_was_asked_for,
    "an error of a megabyte": a_long_error,
    "pings instead of a close frame": no_end,
}
MISDEEDS = (*INSTEAD_OF_A_HANDSHAKE, *INSTEAD_OF_A_GREETING, *INSTEAD_OF_AN_ANSWER)


def path_of(misdeed: str) -> str:
    """The path of a URL that asks for it."""
    return "/" + misdeed.replace(" ", "-")


def serve(peer: socket.socket) -> None:
    """Misbehave as the path says, until the client is gone."""
    with peer, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            head += peer.recv(4096)
        misdeed = head.split()[1].decode().removeprefix("/").replace("-", " ")
        if misdeed in INSTEAD_OF_A_HANDSHAKE:
            INSTEAD_OF_A_HANDSHAKE[misdeed](peer)
        (key,) = (line.split()[1] for line in head.splitlines() if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest())
        peer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        if misdeed in INSTEAD_OF_A_GREETING:
            INSTEAD_OF_A_GREETING[misdeed](peer)
        peer.sendall(_GREETING)
        peer.recv(1 << 16)  # a request
        INSTEAD_OF_AN_ANSWER[misdeed](peer)


def main() -> None:
    """Serve whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            peer, _ = listening.accept()
            threading.Thread(target=serve, args=[peer], daemon=True).start()


if __name__ == "__main__":
    main()
