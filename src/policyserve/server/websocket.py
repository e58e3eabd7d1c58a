"""The edge: one TCP connection, HTTP first, then WebSocket frames; a thin shell around a pure Session.

Frames are `websockets`' sans-I/O protocol, HTTP is h11's. permessage-deflate is never negotiated: it costs ten times
the transfer on images. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import h11
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import State
from websockets.server import ServerProtocol

from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Frame
from policyserve.core.session import Close, Dropped, Effect, Failed, Outcome, Send, Session, Submit
from policyserve.engine.runner import Task
from policyserve.engine.scheduler import Scheduler
from policyserve.server import http
from policyserve.server.config import ServerConfig

log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 16 * 1024
_CLOSE_TIMEOUT_S = 5.0  # for the peer to answer our close frame, and for an HTTP client to read its answer


class Host(Protocol):
    """What a connection needs of the server it belongs to."""

    config: ServerConfig
    scheduler: Scheduler | None  # None until the policy is ready

    def health(self) -> http.Health: ...
    def open_session(self, connection: Connection, path: str) -> Session | http.Response: ...
    def start_session(self, connection: Connection) -> None: ...
    def close_session(self, connection: Connection) -> None: ...
    def count(self, effect: Send | Failed) -> None: ...


class Connection(asyncio.Protocol):
    """One peer. `number` names its session in the log and in the scheduler."""

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        self.session: Session | None = None
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._head = bytearray()  # what the parser has read: the frames' protocol reads it again
        self._answered_http = False
        self._websocket: ServerProtocol | None = None
        self._message: bytearray | None = None  # a fragmented one, as far as it has come
        self._is_text = False
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._patience: asyncio.TimerHandle | None = None  # for the client's first frame

    # Life cycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
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
        if self._websocket is not None:
            self._websocket.receive_eof()
            self._flush()
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

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._heard_at = time.monotonic()
            self._websocket.receive_data(data)
            self._read_frames()
        elif not self._answered_http:  # else the rest of a refused request: read and dropped, see _half_close
            self._head += data
            self._read_head(data)

    def _read_head(self, data: bytes) -> None:
        try:
            self._parser.receive_data(data)
            request = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            self._respond(http.text(error.error_status_hint, str(error)))
            return
        if not isinstance(request, h11.Request):
            return
        path = request.target.decode("ascii", "replace").partition("?")[0]
        if not _is_handshake(request) or http.is_route(path):
            method = request.method.decode()
            self._respond(http.respond(method, path, self._host.health()), has_body=method != "HEAD")
        else:
            self._upgrade(path)

    def _upgrade(self, path: str) -> None:
        websocket = ServerProtocol(max_size=self._host.config.max_frame_bytes, logger=_library_log)
        # What came behind the head is for later: read now, frames would be lost among the handshake's events.
        behind, _ = self._parser.trailing_data
        websocket.receive_data(bytes(self._head.removesuffix(behind)))
        self._head.clear()
        requests = [event for event in websocket.events_received() if isinstance(event, HandshakeRequest)]
        if not requests:
            self._respond(http.text(400, f"not a WebSocket handshake: {websocket.handshake_exc}"))
            return
        response = websocket.accept(requests[0])
        if response.status_code != 101:
            self._respond(http.text(response.status_code, (response.body or b"").decode().strip()))
            return
        opened = self._host.open_session(self, path)
        if isinstance(opened, http.Response):
            self._respond(opened)
            return
        self.session = opened
        self._websocket = websocket
        websocket.send_response(response)
        self._heard_at = time.monotonic()
        self._call_later(self._host.config.ping_interval_s, self._keep_alive)
        self._flush()
        self._host.start_session(self)
        if behind:
            self.data_received(behind)

    def _respond(self, response: http.Response, has_body: bool = True) -> None:
        """Send an HTTP answer and end; what the peer still sends is read and dropped, so that it sees the answer."""
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Connection", "close"),
            *response.headers,
        ]
        reason = HTTPStatus(response.status).phrase
        head = self._parser.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
        body = self._parser.send(h11.Data(data=response.body)) or b"" if has_body else b""
        self._answered_http = True
        self._write(head + body)
        self._half_close()

    def _time_out_handshake(self) -> None:
        self._respond(http.text(408, f"no request within {self._host.config.handshake_timeout_s:g} s"))

    def _read_frames(self) -> None:
        assert self._websocket is not None
        for event in self._websocket.events_received():
            if isinstance(event, WireFrame):
                message = self._assemble(event)
                if message is not None:
                    self._receive(message)
        self._flush()

    def _assemble(self, frame: WireFrame) -> Frame | None:
        """Join fragments; the protocol below has checked their order and the message's size."""
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return None
        message: Frame = frame.data
        if not frame.fin or self._message is not None:
            self._message = self._message or bytearray()  # not a list of fragments: empty ones would fill it
            self._message += frame.data
            if not frame.fin:
                return None
            message, self._message = self._message, None
        return bytes(message).decode("utf-8", "replace") if self._is_text else message

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

    def _answer(self, ticket: int, outcome: Outcome) -> None:
        if self.session is not None:
            self.perform(self.session.answer(ticket, outcome, time.monotonic()))

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
        if self._websocket is None or self._websocket.state is not State.OPEN:
            return
        if isinstance(frame, str):
            self._websocket.send_text(frame.encode())
        else:
            self._websocket.send_binary(frame)
        self._flush()

    def _close(self, close: Close) -> None:
        if self._websocket is not None and self._websocket.state is State.OPEN:
            self._websocket.send_close(close.code, close.reason)
            self._flush()
            self._call_later(_CLOSE_TIMEOUT_S, self.abort)

    def _log_failure(self, error: PolicyserveError) -> None:
        if error.blame == "client" or error.retryable:
            log.warning("session %d: %s: %s", self.number, error.code, error)
        else:
            log.error("session %d: %s: %s", self.number, error.code, error, exc_info=error.__cause__)

    # Bytes out

    def _flush(self) -> None:
        assert self._websocket is not None
        for data in self._websocket.data_to_send():
            if data:
                self._write(data)
            else:  # an empty bytestring: the protocol has nothing more to send
                self._half_close()

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
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # Time

    def _keep_alive(self) -> None:
        config = self._host.config
        if time.monotonic() - self._heard_at > config.ping_timeout_s:
            log.warning("session %d: silent for %g s, gone", self.number, config.ping_timeout_s)
            self.abort()
            return
        if self._websocket is not None and self._websocket.state is State.OPEN:
            self._websocket.send_ping(b"")
            self._flush()
            self._call_later(config.ping_interval_s, self._keep_alive)

    def _call_later(self, delay_s: float | None, callback: Callable[[], Any]) -> None:
        """Set the connection's one timer: handshake, then pings, then the close handshake."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, callback)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _is_handshake(request: h11.Request) -> bool:
    upgrades = {value.strip().lower() for name, value in request.headers if name == b"upgrade"}
    return request.method == b"GET" and b"websocket" in upgrades


# The library's own lines (one per connection) say what ours say already.
_library_log = logging.getLogger("policyserve.websockets")
_library_log.setLevel(logging.WARNING)
