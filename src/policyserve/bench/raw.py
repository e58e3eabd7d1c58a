"""A client that costs next to nothing: one prepared frame, sent again and again, and answers that are only counted.

It measures a server alone. What it sends is masked like any client's, with one fixed mask.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from policyserve.client.address import Address, read_address
from policyserve.core.dialect import opening_of
from policyserve.core.errors import ConfigError, ConnectionLost, DeadlineExceeded, RemoteError
from policyserve.core.messages import Observation
from policyserve.dialects import by_name
from policyserve.websocket.frames import BINARY, CLOSE, MASKED, PING, PONG, TEXT, frame_header, masked

_MASK = b"\x37\xfa\x21\x3d"  # any but zeros, which a server could skip
_FIRST_SPACE = 1 << 16
_LONGEST_HEAD = 1 << 14
_COMPRESSED = 0x40  # the bit beside a frame's opcode that permessage-deflate sets
_DEFLATE_TAIL = b"\0\0\xff\xff"  # which it leaves out

T = TypeVar("T")
R = TypeVar("R")


def request_frame(payload: bytes | bytearray | memoryview, mask: bytes = _MASK, opcode: int = BINARY) -> bytes:
    """A whole client's frame around `payload`, masked."""
    return frame_header(opcode, len(payload), MASKED) + mask + masked(payload, mask)


class Inbox:
    """Cuts what a server sends into frames. Its space is used again: a payload is valid until the next call."""

    def __init__(self, begun: bytes = b"") -> None:
        self._space = bytearray(max(_FIRST_SPACE, len(begun)))
        self._space[: len(begun)] = begun
        self._filled = len(begun)

    def space(self) -> memoryview:
        """Where the next bytes go."""
        return memoryview(self._space)[self._filled :]

    def advance(self, count: int) -> list[tuple[int, memoryview]]:
        """`count` bytes were written into space(): the opcode and payload of every frame that is whole now."""
        self._filled += count
        frames: list[tuple[int, memoryview]] = []
        start = 0
        while (found := self._frame_at(start)) is not None:
            begin, end = found
            if end > self._filled:
                self._need(start, end)
                break
            frames.append((self._space[start] & 0x0F, memoryview(self._space)[begin:end]))
            start = end
        if start == self._filled:
            self._filled = 0
        elif start:
            self._keep(start)
        return frames

    def _frame_at(self, start: int) -> tuple[int, int] | None:
        """Begin and end of the payload of the frame at `start`; None if its header is not whole."""
        available = self._filled - start
        if available < 2:
            return None
        size, header = self._space[start + 1] & 0x7F, 2
        if size >= 126:
            header, form = (4, ">H") if size == 126 else (10, ">Q")
            if available < header:
                return None
            (size,) = struct.unpack_from(form, self._space, start + 2)
        return start + header, start + header + size

    def _need(self, start: int, end: int) -> None:
        """Make room for a frame that is longer than the space, in a copy: frames before it are views of this one."""
        if end - start > len(self._space):
            self._space = self._space + bytes(end - start - len(self._space))

    def _keep(self, start: int) -> None:
        """Move the beginning of the next frame to the front of a new space: the frames before it are views of this."""
        rest = bytes(self._space[start : self._filled])
        self._space = bytearray(len(self._space))
        self._space[: len(rest)] = rest
        self._filled = len(rest)


class RawPeer:
    """One connection, whose greeting is read. Raises ConnectionLost, DeadlineExceeded, ConfigError on the way."""

    def __init__(
        self, url: str, dialect: str, timeout_s: float, api_key: str | None = None, *, offers_deflate: bool = False
    ) -> None:
        place = read_address(url, dialect)
        if place.is_secure or place.is_zmq or place.is_http or place.is_grpc:
            raise ConfigError(f"a raw client speaks ws:// and ws+unix:// only, got {place.url}; leave --raw out")
        self._url, self._timeout_s = place.url, timeout_s
        self.socket = _connect(place, timeout_s)
        try:
            head, begun = _shake_hands(self.socket, place, _handshake(place, api_key, offers_deflate), timeout_s)
            self._is_deflated = b"permessage-deflate" in head.lower()
            _bound_waiting(self.socket, timeout_s)
            self._inbox = Inbox(begun)
            self._waiting = iter(self._inbox.advance(0))
            opening = opening_of(by_name(dialect))
            for message in opening:
                self.send(request_frame(message))
            if opening or by_name(dialect).greets:
                self.receive()
        except BaseException:
            self.close()
            raise

    def frame(self, observation: Observation, dialect: str) -> bytes:
        """The frame that asks for actions, prepared: compressed where the server agreed to that."""
        written = by_name(dialect).write_request(observation)
        assert not isinstance(written, str), "requests are binary in every dialect"
        if not self._is_deflated:
            return request_frame(written)
        return request_frame(_deflated(written), opcode=BINARY | _COMPRESSED)

    def exchange(self, frame: bytes) -> None:
        """Send a prepared frame and wait for one answer; raises RemoteError if the server refused."""
        self.send(frame)
        self.receive()

    def send(self, frame: bytes) -> None:
        """Send a prepared frame."""
        self._guard(self.socket.sendall, frame)

    def receive(self) -> None:
        """Wait for one data frame."""
        while not self.take():
            self.read()

    def read(self) -> None:
        """Take in what has come; blocks as the socket does. Raises ConnectionLost at the end of the stream."""
        count = self._guard(self.socket.recv_into, self._inbox.space())
        if not count:
            raise ConnectionLost("the connection ended without an answer")
        self._waiting = iter(self._inbox.advance(count))

    def take(self) -> bool:
        """Whether a data frame is there, which is taken; raises RemoteError for a text, ConnectionLost for a close."""
        for opcode, payload in self._waiting:
            if opcode == BINARY:
                return True
            if opcode == TEXT:
                raise RemoteError(str(payload, "utf-8", "replace"))
            if opcode == CLOSE:
                raise _ended(payload)
            if opcode == PING:
                self.send(request_frame(payload, opcode=PONG))
        return False

    def close(self) -> None:
        """Cut the connection."""
        self.socket.close()

    def _guard(self, call: Callable[[T], R], argument: T) -> R:
        try:
            return call(argument)
        except (TimeoutError, BlockingIOError) as error:
            raise DeadlineExceeded(f"no answer from {self._url} within {self._timeout_s:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"the connection ended without an answer ({error})") from error


def _handshake(place: Address, api_key: str | None, offers_deflate: bool) -> bytes:
    """The request to become a WebSocket; offers_deflate: as a client on `websockets`' defaults does."""
    asked = urlsplit(place.http_url)
    lines = [
        f"GET {asked.path} HTTP/1.1",
        f"Host: {asked.netloc.rpartition('@')[2]}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    if api_key is not None:
        lines.append(f"Authorization: Api-Key {api_key}")
    elif asked.password:
        pair = f"{unquote(asked.username or '')}:{unquote(asked.password)}"
        lines.append(f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    if offers_deflate:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    return "\r\n".join([*lines, "", ""]).encode()


def _shake_hands(connected: socket.socket, place: Address, request: bytes, timeout_s: float) -> tuple[bytes, bytes]:
    """Become a WebSocket; returns the head of the server's answer and what came behind it."""
    said = b""
    try:
        connected.sendall(request)
        while b"\r\n\r\n" not in said and len(said) < _LONGEST_HEAD and (data := connected.recv(4096)):
            said += data
    except TimeoutError as error:
        raise DeadlineExceeded(f"no handshake with {place.url} within {timeout_s:g} s") from error
    except OSError as error:
        raise ConnectionLost(f"cannot connect to {place.url}: {error}") from error
    head, _, begun = said.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        status = head.partition(b"\r")[0].decode("latin-1")[:60]
        raise ConnectionLost(f"cannot connect to {place.url}: it answers {status!r}")
    return head, begun


def _connect(place: Address, timeout_s: float) -> socket.socket:
    connected: socket.socket | None = None
    try:
        if place.unix_path is None:
            connected = socket.create_connection((place.host, place.port), timeout_s)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout_s)
        connected.connect(place.unix_path)
        return connected
    except OSError as error:
        if connected is not None:
            connected.close()
        raise ConnectionLost(f"cannot connect to {place.url}: {error}") from error


def _bound_waiting(connected: socket.socket, timeout_s: float) -> None:
    """Bound every wait by the kernel: Python's own time-outs cost a call more for every read and write."""
    if sys.platform == "win32":  # where the option is of another form
        return
    seconds = int(timeout_s)
    interval = struct.pack("@ll", seconds, max(int((timeout_s - seconds) * 1e6), 1))
    connected.setblocking(True)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


def _deflated(payload: bytes | bytearray | memoryview) -> bytes:
    """A message that permessage-deflate takes at any time: it refers to none before it."""
    compress = zlib.compressobj(wbits=-15)
    return (compress.compress(payload) + compress.flush(zlib.Z_SYNC_FLUSH))[: -len(_DEFLATE_TAIL)]


def _ended(payload: memoryview) -> RemoteError:
    code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
    return ConnectionLost(
        f"the connection ended without an answer ({code} {str(payload[2:], 'utf-8', 'replace')})", code
    )
