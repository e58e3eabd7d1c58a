"""Writes to one peer's transport, counts what the peer leaves unread, and pauses reading from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from policyserve.websocket import frames

JOINED = 1 << 16  # bytes, up to which a frame is one write: copying it costs less than a second call
_HIGH_WATER = 1 << 16  # bytes that may wait before a peer counts as slow: the default of asyncio and uvloop


class Pipe:
    """Writes frames, and bytes as they are; does nothing once the peer is gone.

    on_unread: told how many bytes more wait for a peer that reads slowly.
    """

    def __init__(self, on_unread: Callable[[int], object]) -> None:
        self.transport: asyncio.Transport | None = None  # between its connection_made and connection_lost
        self.is_closing = False  # our close frame is sent, or never will be: no frame may follow
        self.is_slow = False  # the peer does not read its replies
        self.is_reading_paused = False
        self._on_unread = on_unread
        self._unread = 0  # bytes written since it became slow, and those that waited then

    def write_frame(self, opcode: int, payload: bytes | bytearray | memoryview) -> None:
        """Send an unfragmented frame."""
        transport = self.transport
        if self.is_closing or transport is None or transport.is_closing():
            return
        was_slow = self.is_slow  # if this frame makes it slow, count_backlog() has counted it
        header = frames.frame_header(opcode, len(payload))
        if len(payload) <= JOINED:
            transport.write(header + payload)
        else:
            transport.writelines((header, payload))
            if not was_slow and transport.get_write_buffer_size() > _HIGH_WATER:
                # writelines() of asyncio in Python 3.12.0–3.12.8 and 3.13.0–3.13.1 never calls pause_writing()
                # (CVE-2024-12254), and a peer that reads nothing would fill our memory. This looks at the buffer again.
                transport.set_write_buffer_limits(_HIGH_WATER)
        if was_slow:
            self._count_unread(len(payload))

    def write_close(self, code: int, reason: str) -> None:
        """Send a close frame, behind which no frame goes out."""
        self.write_frame(frames.CLOSE, frames.close_payload(code, reason))
        self.is_closing = True

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self.is_open and self.transport is not None:
            self.transport.write(data)

    def half_close(self) -> None:
        """End our side and let the peer end its own: closing at once would reset what it has not read yet."""
        if self.transport is None:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def close(self) -> None:
        """End both sides, once all is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def set_reading(self, is_wanted: bool) -> None:
        """Read what the peer sends, or leave it in the socket."""
        if is_wanted != self.is_reading_paused or self.transport is None or not self.is_open:
            return
        self.is_reading_paused = not is_wanted
        if is_wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def count_backlog(self) -> None:
        """The peer has become slow: count what waits for it, and what it takes from now on."""
        self._unread = 0
        self._count_unread(self.unsent)

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to read."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    @property
    def taken(self) -> int | None:
        """Bytes that the peer took since it became a slow reader; None: it is not slow."""
        return self._unread - self.unsent if self.is_slow else None

    def _count_unread(self, count: int) -> None:
        self._unread += count
        self._on_unread(count)
