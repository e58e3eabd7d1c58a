"""The state of a client's open WebSocket: what came, what has to be sent for it, and how it ended. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from policyserve.client.session import ended
from policyserve.core.errors import RemoteError
from policyserve.core.messages import Message, Part
from policyserve.websocket import frames
from policyserve.websocket.client_frames import FrameReader, FrameWriter

_MAX_MESSAGE_BYTES = 1 << 30  # a header that claims more must not make a robot's computer try


class Wire:
    """Both directions of one connection, after the handshake.

    random_bytes: for the keys of its frames; None: they are zero. `unsent` is what its shell must send as soon as no
    frame is half sent. `end`, once set, says how the connection ended.
    """

    def __init__(self, random_bytes: Callable[[int], bytes] | None) -> None:
        self.end: RemoteError | None = None
        self.unsent = b""
        self.pongs = 0
        self._messages: deque[Message] = deque()
        self._is_closing = False
        self._reader = FrameReader(_MAX_MESSAGE_BYTES)
        self._writer = FrameWriter(random_bytes)
        self.get_buffer = self._reader.get_buffer

    def request(self, parts: Sequence[Part]) -> Iterable[Part]:
        """The pieces of a binary message, as FrameWriter.windows() gives them."""
        return self._writer.windows(frames.BINARY, parts)

    def ping(self) -> bytes:
        """A ping; its pong comes after everything that the server sent before it."""
        return self._writer.frame(frames.PING, b"")

    def close(self) -> bytes:
        """A close frame, behind which nothing may be sent."""
        self._is_closing = True
        return self._writer.frame(frames.CLOSE, frames.close_payload(1000, ""))

    def advance(self, count: int) -> None:
        """`count` bytes were written into get_buffer()'s view; 0: the server has ended its side."""
        if count:
            self._take(self._reader.advance(count))
        else:
            self.on_lost("no close frame")

    def feed(self, data: bytes) -> None:
        """Read what came behind the handshake."""
        self._take(self._reader.feed(data))

    def on_lost(self, why: str) -> None:
        """The connection ended without a close frame."""
        self.end = self.end or ended(None, why)

    def take(self) -> Message | None:
        """The oldest message that was not taken yet; None: none came so far. Raises how the connection ended."""
        if self._messages:
            return self._messages.popleft()
        if self.end is not None:
            raise self.end
        return None

    @property
    def is_silent(self) -> bool:
        """Whether nothing is left to be taken."""
        return not self._messages

    def _take(self, events: Sequence[frames.FrameEvent]) -> None:
        for event in events:
            if isinstance(event, (memoryview, str)):
                self._messages.append(event)
            elif isinstance(event, frames.Ping):
                self._answer(frames.PONG, event.payload)
            elif isinstance(event, frames.Pong):
                self.pongs += 1
            else:
                self._answer(frames.CLOSE, frames.close_payload(event.code, event.reason))
                self._is_closing = True
                if isinstance(event, frames.PeerClose):
                    self.end = ended(event.code, event.reason)
                else:
                    self.end = ended(None, f"the server broke the WebSocket protocol: {event.reason}")

    def _answer(self, opcode: int, payload: bytes) -> None:
        if not self._is_closing:
            self.unsent += self._writer.frame(opcode, payload)
