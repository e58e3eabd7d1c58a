"""The edge: one connection, HTTP first, then WebSocket frames; a thin shell around a pure Session.

A message's bytes go from the socket into the message's own buffer, whose views the policy gets. Everything here runs in
the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Frame
from policyserve.core.session import Close, Dropped, Effect, Failed, Outcome, Send, Session, Submit
from policyserve.engine.runner import Task
from policyserve.engine.scheduler import Scheduler
from policyserve.server import framing, http
from policyserve.server.buffers import BufferPool
from policyserve.server.config import ServerConfig
from policyserve.server.handshake import Handshake, PageRequest, UpgradeRequest

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0  # for the peer to answer our close frame, and for an HTTP client to read its answer
_JOINED = 1 << 16  # bytes, up to which a frame is one write: copying it costs less than a second call
_SCRATCH = framing.make_scratch()  # where bytes land that belong to no large message; used within one call only


class Host(Protocol):
    """What a connection needs of the server it belongs to."""

    config: ServerConfig
    scheduler: Scheduler | None  # None until the policy is ready
    pool: BufferPool

    def health(self) -> http.Health: ...
    def open_session(self, connection: Connection, path: str) -> Session | http.Response: ...
    def start_session(self, connection: Connection) -> None: ...
    def close_session(self, connection: Connection) -> None: ...
    def count(self, effect: Send | Failed) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """One peer. `number` names its session in the log and in the scheduler."""

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        self.session: Session | None = None
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._handshake: Handshake | None = Handshake()  # until it is through, or refused
        self._frames: framing.FrameReader | None = None  # from then on, if it became a WebSocket
        self._is_closing = False  # our close frame is sent, or never will be: no frame may follow
        self._is_peer_slow = False  # it does not read its replies
        self._is_reading_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._patience: asyncio.TimerHandle | None = None  # for the client's first frame

    # Life cycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._call_later(self._host.config.handshake_timeout_s, self._time_out_handshake)

    def connection_lost(self, exc: Exception | None) -> None:
        self._call_later(None, self.abort)
        if self._patience is not None:
            self._patience.cancel()
        self._transport = None
        if self.session is not None:
            self.session.leave(1006, "")
            self._host.close_session(self)

    def eof_received(self) -> bool:
        self._is_closing = True
        self._call_later(_CLOSE_TIMEOUT_S, self.abort)  # a peer that does not read what is left would stay for ever
        return False

    def expect_first_frame(self, patience_s: float | None) -> None:
        """Tell the session if the client has said nothing by then; None: it need not."""
        if patience_s is not None and self._transport is not None:
            self._patience = asyncio.get_running_loop().call_later(patience_s, self._note_silence)

    def _note_silence(self) -> None:
        self._patience = None
        if self.session is not None:
            if self.session.dialect is None and not self.session.heard:
                log.info("session %d: no first frame, so it is greeted", self.number)
            self.perform(self.session.silence())

    @property
    def peer(self) -> str:
        """The peer's address, for the log."""
        address = self._transport.get_extra_info("peername") if self._transport else None
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "local"

    # Bytes in

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop writes what comes next."""
        return memoryview(_SCRATCH) if self._frames is None else self._frames.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._frames is not None:
            self._heard_at = time.monotonic()
            self._take(self._frames.advance(nbytes))
        elif self._handshake is not None:
            self._begin(bytes(_SCRATCH[:nbytes]))
        # else the rest of a refused request: read and dropped, see _half_close

    def _begin(self, data: bytes) -> None:
        assert self._handshake is not None
        asked = self._handshake.feed(data)
        if isinstance(asked, PageRequest):
            self._respond(http.respond(asked.method, asked.path, self._host.health()))
        elif isinstance(asked, http.Response):
            self._respond(asked)
        elif asked is not None:
            self._upgrade(asked)

    def _upgrade(self, asked: UpgradeRequest) -> None:
        opened = self._host.open_session(self, asked.path)
        if isinstance(opened, http.Response):
            self._respond(opened)
            return
        self.session = opened
        self._handshake = None
        frames = self._frames = framing.FrameReader(self._host.config.max_frame_bytes, self._host.pool, _SCRATCH)
        self._write(asked.accept)
        self._heard_at = time.monotonic()
        self._call_later(self._host.config.ping_interval_s, self._keep_alive)
        self._host.start_session(self)
        if asked.behind:
            self._take(frames.feed(asked.behind))

    def _respond(self, response: http.Response) -> None:
        """Send an HTTP answer and end; what the peer still sends is read and dropped, so that it sees the answer."""
        assert self._handshake is not None
        self._write(self._handshake.answer(response))
        self._handshake = None
        self._half_close()

    def _time_out_handshake(self) -> None:
        self._respond(http.text(408, f"no request within {self._host.config.handshake_timeout_s:g} s"))

    def _take(self, events: Sequence[framing.FrameEvent]) -> None:
        for event in events:
            if isinstance(event, framing.Message):
                self._receive(event.payload)
            elif isinstance(event, framing.Ping):
                self._write_frame(framing.PONG, event.payload)
            elif isinstance(event, framing.PeerClose):
                self._send_close(event.code, event.reason)
                self._half_close()
            else:
                log.warning("session %d: %s", self.number, event.reason)
                self._send_close(event.code, event.reason)
                self._half_close()

    # Between the session and the scheduler

    def _receive(self, message: Frame) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self.session is None:
            return
        was_known = self.session.dialect is not None
        effects = self.session.receive(message, time.monotonic())
        if not was_known and self.session.dialect is not None:
            log.info("session %d speaks %s", self.number, self.session.dialect.name)
        self.perform(effects)
        self._set_reading()

    def _answer(self, ticket: int, outcome: Outcome) -> None:
        if self.session is not None:
            self.perform(self.session.answer(ticket, outcome, time.monotonic()))
            if self._is_reading_paused:
                self._set_reading()

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out what the session wants."""
        for effect in effects:
            if isinstance(effect, Send):
                self._host.count(effect)
                self._send(effect.frame)
            elif isinstance(effect, Submit):
                self._submit(effect)
            elif isinstance(effect, Close):
                self._close(effect)
            elif isinstance(effect, Failed):
                self._host.count(effect)
                self._log_failure(effect.error)
            elif isinstance(effect, Dropped):
                keys = ", ".join(repr(key[:60]) for key in effect.keys[:10])  # a client's texts: bounded, on one line
                log.info("session %d: keys not in the spec dropped: %s", self.number, keys)

    def _submit(self, submit: Submit) -> None:
        scheduler = self._host.scheduler
        assert scheduler is not None, "a session submits only after serve()"
        task = Task(self.number, submit.observation, submit.batch_size)
        try:
            scheduler.submit(task, submit.arrived_at, lambda outcome: self._answer(submit.ticket, outcome))
        except PolicyserveError as error:
            self._answer(submit.ticket, error)

    def _send(self, frame: Frame) -> None:
        if isinstance(frame, str):
            self._write_frame(framing.TEXT, frame.encode())
        else:
            self._write_frame(framing.BINARY, frame)

    def _close(self, close: Close) -> None:
        if not self._is_closing:
            self._send_close(close.code, close.reason)
            self._call_later(_CLOSE_TIMEOUT_S, self.abort)

    def _log_failure(self, error: PolicyserveError) -> None:
        if error.blame == "client" or error.retryable:
            log.warning("session %d: %s: %s", self.number, error.code, error)
        else:
            log.error("session %d: %s: %s", self.number, error.code, error, exc_info=error.__cause__)

    # Bytes out

    def _write_frame(self, opcode: int, payload: bytes | bytearray | memoryview) -> None:
        if self._is_closing or self._transport is None or self._transport.is_closing():
            return
        header = framing.frame_header(opcode, len(payload))
        if len(payload) <= _JOINED:
            self._transport.write(b"".join((header, payload)))
        else:
            self._transport.writelines((header, payload))

    def _send_close(self, code: int, reason: str) -> None:
        self._write_frame(framing.CLOSE, framing.close_payload(code, reason))
        self._is_closing = True

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _half_close(self) -> None:
        """End our side and let the peer end its own: closing at once would reset what it has not read yet."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._call_later(_CLOSE_TIMEOUT_S, self.abort)
        else:
            self._transport.close()

    def pause_writing(self) -> None:
        """A peer that does not read its replies gets no more of them: its requests are no longer read either."""
        self._is_peer_slow = True
        self._set_reading()

    def resume_writing(self) -> None:
        self._is_peer_slow = False
        self._set_reading()

    def _set_reading(self) -> None:
        """Leave in the socket what a session sends beyond twice its bound, where every further request is refused."""
        is_swamped = self.session is not None and self.session.pending > 2 * self._host.config.max_pending
        wants_pause = self._is_peer_slow or is_swamped
        if wants_pause == self._is_reading_paused or self._transport is None or self._transport.is_closing():
            return
        self._is_reading_paused = wants_pause
        if wants_pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Time

    def _keep_alive(self) -> None:
        config = self._host.config
        if time.monotonic() - self._heard_at > config.ping_timeout_s:
            log.warning("session %d: silent for %g s, gone", self.number, config.ping_timeout_s)
            self.abort()
            return
        if not self._is_closing:
            self._write_frame(framing.PING, b"")
            self._call_later(config.ping_interval_s, self._keep_alive)

    def _call_later(self, delay_s: float | None, callback: Callable[[], Any]) -> None:
        """Set the connection's one timer: handshake, then pings, then the close handshake."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, callback)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
