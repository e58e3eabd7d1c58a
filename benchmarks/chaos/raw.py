"""A peer over a bare socket: it sends what no client library would, and reads what comes."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

from policyserve.websocket.frames import MASKED, frame_header

from .rig import KEY, Place

_LINGER_OFF = struct.pack("ii", 1, 0)  # closing resets the connection


class RawPeer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes; nothing happens if the server has closed."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def read_head(self) -> bytes:
        """The head of the server's HTTP answer, or what there is of it."""
        try:
            return await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except ConnectionError:
            return b""

    async def read_frame(self) -> tuple[int, bytes] | None:
        """The server's next frame but pings: opcode and payload; None at the connection's end."""
        try:
            while True:
                first, second = await self._reader.readexactly(2)
                size = second & 0x7F
                if size > 125:
                    size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
                payload = await self._reader.readexactly(size)
                if first & 0x0F != 9:
                    return first & 0x0F, payload
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def rest(self) -> bytes:
        """All that still comes."""
        got = b""
        with suppress(ConnectionError):
            while more := await self._reader.read(1 << 16):
                got = (got + more)[-200:]
        return got

    def half_close(self) -> None:
        with suppress(OSError):
            self._writer.write_eof()

    def reset(self) -> None:
        """End it with a RST."""
        with suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        self._writer.transport.abort()

    async def say_and_leave(self, said: bytes) -> None:
        """Send all that it ever says, and go once the server has ended its side, too."""
        await self.send(said)
        self.half_close()
        await self.rest()
        await self.close()

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def connect_raw(place: Place) -> RawPeer:
    """A connection on which nothing was said yet."""
    if place.uds is not None:
        return RawPeer(*await asyncio.open_unix_connection(place.uds))
    return RawPeer(*await asyncio.open_connection("127.0.0.1", place.port))


async def open_raw(place: Place, path: str) -> RawPeer:
    """A WebSocket by hand."""
    peer = await connect_raw(place)
    await peer.send(handshake(path))
    head = await peer.read_head()
    assert head.startswith(b"HTTP/1.1 101"), head
    return peer


def handshake(path: str, authorization: str | None = f"Bearer {KEY}") -> bytes:
    """A client's request to become a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1", "Host: soak", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
    ]  # fmt: skip
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    return "\r\n".join((*lines, "", "")).encode()


def frame(opcode: int, payload: bytes, *, fin: bool = True, claims: int | None = None, key: bytes = bytes(4)) -> bytes:
    """A client's frame; `claims` is the size that it lies about. key: of the mask; the payload is masked already."""
    header = frame_header(opcode, len(payload) if claims is None else claims, MASKED)
    if not fin:
        header = bytes([opcode]) + header[1:]
    return header + key + payload
