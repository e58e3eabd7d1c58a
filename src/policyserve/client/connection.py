"""The state of a client's open WebSocket: what came, what has to be sent for it, and how it ended. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from policyserve.client.session import ended
from policyserve.core.errors import RemoteError
from policyserve.core.messages import Message, Part
from policyserve.websocket import frames
from policyserve.websocket.client_frames import FrameReader, FrameWriter

_MAX_MESSAGE_BYTES = 1 << 30  # a header that claims more must not make a robot's computer try
_MAX_KEPT = 2  # messages: the one that is awaited, and one more, which says that the server sends what nobody asked for
_MAX_BEHIND_CLOSE = 1 << 20  # bytes


class Silence:
    """How long a server that owes an answer may say nothing. dead_after_s: None: as long as the answer may take.

    It is asked for a pong after a third of that. is_known: it has answered once: before, it may be compiling, and some
    servers answer no pings meanwhile.
    """

    def __init__(self, dead_after_s: float | None) -> None:
        self.is_known = False
        self.until = math.inf
        self._dead_after_s = dead_after_s
        self._heard_at = 0.0

    @property
    def told(self) -> str:
        return f"nothing was heard of the server for {self._dead_after_s:g} s, no pong either"

    def begin(self, now: float) -> None:
        """Something was heard, or asked."""
        if self._dead_after_s is not None and self.is_known:
            self._heard_at, self.until = now, now + self._dead_after_s / 3

    def is_death(self, now: float) -> bool:
        """`until` has come: whether it is too late; else a ping is due, and `until` is when it is too late."""
        assert self._dead_after_s is not None
        dead_at = self._heard_at + self._dead_after_s
        self.until = dead_at
        return now >= dead_at


class Wire:
    """Both directions of one connection, after the handshake.

    random_bytes: for the keys of its frames; None: they are zero. `unsent` is what its shell must send as soon as no
    frame is half sent: a pong for the newest ping, or a close frame. `is_awaited`: whether a message is; what comes
    else has been asked for by nobody, and is kept as far as it takes to know of it. `end`, once set, says how the
    connection ended.
    """

    def __init__(self, random_bytes: Callable[[int], bytes] | None) -> None:
        self.end: RemoteError | None = None
        self.unsent = b""
        self.pongs = 0
        self.is_awaited = False
        self._messages: deque[Message] = deque()
        self._is_closing = False
        self._behind_close = 0  # bytes that came behind our close frame
        self._reader = FrameReader(_MAX_MESSAGE_BYTES)
        self._writer = FrameWriter(random_bytes)
        self.get_buffer = self._reader.get_buffer

    def request(self, parts: Sequence[Part]) -> Iterable[Part]:
        """The pieces of a binary message, as FrameWriter.windows() gives them; an answer is awaited from now on."""
        self.is_awaited = True
        return self._writer.windows(frames.BINARY, parts)

    def ping(self) -> bytes:
        """A ping; its pong comes after everything that the server sent before it."""
        return self._writer.frame(frames.PING, b"")

    def close(self) -> bytes:
        """A close frame, behind which nothing may be sent; messages that come behind it are dropped."""
        self._is_closing = True
        self._messages.clear()
        self.unsent = b""
        return self._writer.frame(frames.CLOSE, frames.close_payload(1000, ""))

    def advance(self, count: int) -> None:
        """`count` bytes were written into get_buffer()'s view; 0: the server has ended its side."""
        if not count:
            self.on_lost("no close frame")
            return
        self._take(self._reader.advance(count))
        if self._is_closing:
            self._behind_close += count
            if self._behind_close > _MAX_BEHIND_CLOSE:
                self.on_lost(f"more than {_MAX_BEHIND_CLOSE >> 20} MiB behind our close frame")

    def feed(self, data: bytes) -> None:
        """Read what came behind the handshake."""
        self._take(self._reader.feed(data))

    def on_lost(self, why: str) -> None:
        """The connection ended without a close frame."""
        self.end = self.end or ended(None, why)

    def take(self) -> Message | None:
        """The oldest message that was not taken yet; None: none came so far. Raises how the connection ended."""
        if self._messages:
            self.is_awaited = False
            return self._messages.popleft()
        if self.end is not None:
            raise self.end
        return None

    @property
    def is_silent(self) -> bool:
        """Whether nothing is left to be taken."""
        return not self._messages

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left to be taken, and no message has begun to come that may still become whole."""
        return not self._messages and (self.end is not None or not self._reader.is_within_message)

    @property
    def has_unasked(self) -> bool:
        """Whether more messages came, or began to come, than are awaited: nothing more needs to be read."""
        return not self._is_closing and len(self._messages) + self._reader.is_within_message > self.is_awaited

    def _take(self, events: Sequence[frames.FrameEvent]) -> None:
        ping = None
        for event in events:
            if isinstance(event, (memoryview, str)):
                if len(self._messages) < _MAX_KEPT and not self._is_closing:
                    self._messages.append(event)
            elif isinstance(event, frames.Ping):
                ping = event
            elif isinstance(event, frames.Pong):
                self.pongs += 1
            else:
                self._answer(frames.CLOSE, frames.close_payload(event.code, event.reason))
                self._is_closing = True
                if isinstance(event, frames.PeerClose):
                    self.end = ended(event.code, event.reason)
                else:
                    self.end = ended(None, f"the server broke the WebSocket protocol: {event.reason}")
        if ping is not None:  # of several that came together the newest needs a pong (RFC 6455, section 5.5.3)
            self._answer(frames.PONG, ping.payload)

    def _answer(self, opcode: int, payload: bytes) -> None:
        if not self._is_closing:
            self.unsent = self._writer.frame(opcode, payload)
