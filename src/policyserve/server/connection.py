"""One connection: HTTP first, then WebSocket frames, whose messages go to a Conversation, or HTTP for good.

A message's bytes go from the socket into the message's own buffer, whose views the policy gets. Everything here runs in
the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any, cast

from policyserve.core.events import Event
from policyserve.core.messages import EncodedText, Message
from policyserve.core.printable import one_line
from policyserve.core.session import Session
from policyserve.server import routes, tls
from policyserve.server.busy_poll import BusyPoll
from policyserve.server.config import ServerConfig
from policyserve.server.conversation import Conversation
from policyserve.server.guards import Facts, Pace, Verdict, Watch, no_room
from policyserve.server.handshake import BodyRequest, Handshake, PageRequest, UpgradeRequest
from policyserve.server.listener import end_if_silent, peer_of
from policyserve.server.pipe import JOINED, Pipe
from policyserve.server.reception import Reception
from policyserve.server.rest.peer import RestPeer
from policyserve.server.turns import LoopTurns, Share
from policyserve.websocket import frames, server_frames

_CLOSE_TIMEOUT_S = 5.0  # for the peer to answer our close frame, and for an HTTP client to read its answer
_TRY_AGAIN_LATER = 1013
_UNCOUNTED = 1 << 16  # bytes of small messages, from which on they are counted


class Connection(asyncio.BufferedProtocol):
    """One peer. `number` is its session's once it has one, in the log and to the engine; before that it is below 0.

    scratch: where bytes land that belong to no large message, used within one call only; connections of one event loop
    may share it. With those of another, in another thread, one robot would get what another sent.
    """

    def __init__(
        self,
        number: int,
        reception: Reception,
        config: ServerConfig,
        busy_poll: BusyPoll,
        turns: LoopTurns,
        scratch: bytearray,
    ) -> None:
        self.number = number
        self.address = ""  # the peer's IP address; empty on a Unix socket
        self.peer = "local"  # the same with its port, for the log
        self._stands_for: tuple[str, str] | None = None
        self._reception = reception
        self._config = config
        self._busy_poll = busy_poll
        self._scratch = scratch
        self._came_at = time.monotonic()  # TLS counts
        self._conversation: Conversation | None = None  # from the end of the handshake on
        self._pipe = Pipe(self._note_unread)
        pages = reception.routes
        self._handshake: Handshake | None = Handshake(config.max_head_bytes, pages.is_page, pages.takes_body)
        self._rest: RestPeer | None = None  # from the first request with a body on
        self._frames: server_frames.FrameReader | None = None  # from then on, if it became a WebSocket
        self._unfinished_bytes = 0  # of a message that is not whole yet
        self._began_at = 0.0  # when the first bytes of a large message came
        self.receiving_s = 0.0  # how long its newest message took to come in
        self._counted_bytes = 0  # of all its messages so far, in the server's budget
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0  # when its last bytes came
        self._heard_message = False
        self._watch: Watch | None = None
        self._share = Share(turns)
        self._pace = Pace()
        self._is_paced = False  # what came, or comes, is read in a later turn
        self._next_turn: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None  # for the client's first frame

    # Life cycle

    def stand_for(self, address: str, peer: str) -> None:
        """Be counted and logged as this peer, whose connection a load balancer passes on."""
        self._stands_for = address, peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pipe.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        rest_s = self._came_at + self._config.handshake_timeout_s - time.monotonic()
        self._call_later(max(rest_s, 0.0), self._time_out_handshake)
        self.address, self.peer = self._stands_for or peer_of(transport)
        if isinstance(transport.get_extra_info("peername"), tuple):
            end_if_silent(transport, self._config.ping_timeout_s)
        self._reception.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._call_later(None, self.abort)
        for timer in (self._patience, self._next_turn):
            if timer is not None:
                timer.cancel()
        if self._pipe.transport is not None:
            self._pipe.transport.abort()  # it is over; Python 3.10's TLS transport does not know that by itself
        self._pipe.transport = None
        if self._frames is not None:
            self._frames.abandon()  # now, and not when the collector comes by: it may hold much
        if self._rest is not None:
            self._rest.lose()
        if self._conversation is not None:
            self._conversation.lose()
        elif self._handshake is not None and isinstance(exc, ssl.SSLError):
            text, event = "a TLS handshake failed peer=%s: %s", Event("handshake_failed", peer=self.peer)
            reason = tls.explain(exc)
            self._note(logging.WARNING, "tls", text, self.peer, reason, event=event)
            self._reception.on_refused(self.peer, "tls", reason)
        self._reception.leave(self)

    def eof_received(self) -> bool:
        if self._rest is not None and self._rest.end_its_side():
            return True
        self._pipe.is_closing = True
        self._call_later(_CLOSE_TIMEOUT_S, self.abort)  # a peer that does not read what is left would stay for ever
        return False

    # Bytes in

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop writes what comes next."""
        return memoryview(self._scratch) if self._frames is None else self._frames.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._frames is not None:
            now = self._heard_at = time.monotonic()
            self._busy_poll.on_bytes(now)
            for event in self._frames.advance(nbytes):
                self._take(event)
            if self._frames.has_more or self._share.is_spent(nbytes):
                self._slow_down()
        elif self._rest is not None:
            self._rest.feed(bytes(self._scratch[:nbytes]))
        elif self._handshake is not None:
            self._begin(bytes(self._scratch[:nbytes]))
        # else the rest of a refused request: read and dropped, see _half_close

    def _begin(self, data: bytes) -> None:
        assert self._handshake is not None
        asked = self._handshake.feed(data)
        if isinstance(asked, PageRequest):
            self._respond(self._reception.respond(asked))
        elif isinstance(asked, routes.Response):
            self._refuse(asked)
        elif isinstance(asked, BodyRequest):
            self._call_later(None, self.abort)
            whose = self.number, self.address, self.peer
            self._rest = RestPeer(*whose, self._handshake, self._pipe, self._reception, self._config, self._share)
            self._handshake = None
            self._rest.take(asked)
        elif asked is not None:
            self._upgrade(asked)

    def _upgrade(self, asked: UpgradeRequest) -> None:
        opened = self._reception.open_session(self, asked.path, asked.credentials, asked.asks_images)
        if isinstance(opened, routes.Response):
            self._refuse(opened)
            return
        self._conversation = opened
        if asked.asks_version:
            opened.tell_version()
        self._handshake = None
        reader = self._frames = server_frames.FrameReader(self._config.max_frame_bytes, self._scratch)
        reader.on_growth = self._grow
        self._pipe.write(asked.accept)
        self._heard_at = time.monotonic()
        self._watch = Watch(self._config, self._heard_at)
        self._call_later(self._config.watch_interval_s, self._look_after)
        self._reception.start_session(self)
        if asked.behind:
            for event in reader.feed(asked.behind):
                self._take(event)
            if reader.has_more:
                self._slow_down()

    def _slow_down(self) -> None:
        """More has come, or is coming, than one turn takes: read it in turns to come."""
        assert self._frames is not None
        refused = self._conversation.session.refused if self._conversation is not None else 0
        verdict = self._pace.count(time.monotonic(), self._frames.idle_frames + refused)
        if verdict is not None and not self._pipe.is_closing:
            self._end(verdict)
        self._is_paced = True
        self._set_reading()

    def _go_on(self) -> None:
        """Its next turn has come."""
        self._next_turn, self._is_paced = None, False
        if self._frames is None or not self._pipe.is_open:
            return
        self._heard_at = time.monotonic()
        for event in self._frames.go_on():
            self._take(event)
        if self._frames.has_more:
            self._slow_down()
        else:
            self._set_reading()

    def _respond(self, response: routes.Response) -> None:
        """Send an HTTP answer and end; what the peer still sends is read and dropped, so that it sees the answer."""
        assert self._handshake is not None
        self._pipe.write(self._handshake.answer(response))
        self._handshake = None
        self._half_close()

    def _refuse(self, response: routes.Response) -> None:
        self._reception.note_refused(self, response)
        self._respond(response)

    def _time_out_handshake(self) -> None:
        self._refuse(routes.text(408, f"no request within {self._config.handshake_timeout_s:g} s"))

    def _take(self, event: server_frames.PeerEvent) -> None:
        if isinstance(event, (memoryview, EncodedText)):
            self._take_message(event)
        elif isinstance(event, frames.Ping):
            self._pipe.write_frame(frames.PONG, event.payload)
        else:
            if isinstance(event, frames.Violation):
                told = Event("protocol_violated", self.number, self.peer, code=event.code)
                self._note(logging.WARNING, "violation", "session %d: %s", self.number, event.reason, event=told)
            self._pipe.write_close(event.code, event.reason)
            self._half_close()

    def _take_message(self, message: Message | EncodedText) -> None:
        conversation = self._conversation
        assert conversation is not None, "frames are read behind the handshake, which brought it"
        self._heard_message = True
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self.receiving_s = self._heard_at - self._began_at if self._unfinished_bytes else 0.0
        self._unfinished_bytes = 0
        conversation.receive(message, self._heard_at)
        session = conversation.session
        if session.received_bytes > self._counted_bytes + _UNCOUNTED:
            self._count_small(session)
        if session.pending > self._config.max_pending:
            self._set_reading()

    # A conversation's sink

    def send(self, message: Message) -> None:
        """Send a whole message; a str is sent as a text frame."""
        if isinstance(message, str):
            self._pipe.write_frame(frames.TEXT, message.encode("utf-8", "replace"))
        else:
            self._pipe.write_frame(frames.BINARY, message)
        if self._heard_message:
            self._busy_poll.on_answer(time.monotonic())
            if self._pipe.is_reading_paused:
                self._set_reading()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait for the peer's."""
        if not self._pipe.is_closing:
            self._pipe.write_close(code, one_line(reason))  # another package's dialect may have written it
            self._call_later(_CLOSE_TIMEOUT_S, self.abort)

    def expect_first_message(self, patience_s: float | None) -> None:
        """Tell the conversation if the client has said nothing by then; None: it need not."""
        if patience_s is not None and self._pipe.transport is not None:
            self._patience = asyncio.get_running_loop().call_later(patience_s, self._note_silence)

    def _note_silence(self) -> None:
        self._patience = None
        if self._conversation is not None:
            self._conversation.note_silence()

    def _note(self, level: int, kind: str, text: str, *args: object, event: Event) -> None:
        self._reception.note(self.address, level, kind, text, *args, event=event)

    # Bytes out

    def _half_close(self) -> None:
        if self._pipe.is_open:
            self._pipe.half_close()
            self._call_later(_CLOSE_TIMEOUT_S, self.abort)

    def pause_writing(self) -> None:
        """A peer that does not read its replies gets no more of them: its requests are no longer read either."""
        self._pipe.is_slow = True
        if self._rest is not None:
            self._rest.set_slow(True)
        else:
            self._set_reading()
        self._pipe.count_backlog()

    def resume_writing(self) -> None:
        self._pipe.is_slow = False
        if self._rest is not None:
            self._rest.set_slow(False)
        else:
            self._set_reading()

    def _set_reading(self) -> None:
        """Read no more while a session has over twice as many requests without an answer as it may have."""
        pending = self._conversation.session.pending if self._conversation is not None else 0
        is_swamped = pending > 2 * self._config.max_pending
        is_held = self._pipe.is_slow or is_swamped
        if self._is_paced and not is_held and self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_later(self._pace.wait_s, self._go_on)
        self._pipe.set_reading(not (is_held or self._is_paced))

    # Time

    def _look_after(self) -> None:
        """End the session if the watch says so; else ping it if a ping is due, and look again later."""
        now = time.monotonic()
        if self._pipe.is_closing or self._watch is None:
            return
        verdict = self._watch.look(now, self._facts(now))
        if verdict is not None:
            self._end(verdict)
            return
        if self._watch.is_ping_due(now):
            self._pipe.write_frame(frames.PING, b"")
        self._call_later(self._config.watch_interval_s, self._look_after)

    def _facts(self, now: float) -> Facts:
        assert self._conversation is not None
        assert self._frames is not None
        session, taken = self._conversation.session, self._pipe.taken
        if self._pipe.is_reading_paused:  # while our reading is paused, the peer cannot be heard
            return Facts(now, session.received, session.pending, False, taken)
        return Facts(self._heard_at, session.received, session.pending, self._frames.is_mid_message, taken)

    def _end(self, verdict: Verdict) -> None:
        event = Event("session_ended", self.number, self.peer, code=verdict.code)
        self._note(logging.WARNING, "ended", "session %d: %s", self.number, verdict.reason, event=event)
        if verdict.code is None or self._conversation is None:
            self.abort()
        else:
            self._conversation.leave(verdict.code, verdict.reason)

    def _call_later(self, delay_s: float | None, callback: Callable[[], Any]) -> None:
        """Set the connection's one timer: handshake, then pings, then the close handshake."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, callback)

    def abort(self) -> None:
        """Cut the connection at once."""
        self._pipe.abort()

    # Memory

    def _grow(self, count: int) -> None:
        """`count` bytes of a large message came in."""
        if not self._unfinished_bytes:
            self._began_at = self._heard_at
        self._unfinished_bytes += count
        self._counted_bytes += count
        self._reception.grow(count)

    def _count_small(self, session: Session) -> None:
        """Count small messages, and what was made of all, many at a time."""
        count = session.received_bytes - self._counted_bytes
        self._counted_bytes += count
        self._reception.grow(count, are_large=False)

    def _note_unread(self, count: int) -> None:
        """`count` bytes more wait for a peer that reads slowly."""
        self._reception.grow(count)
        config = self._config
        if self._pipe.unsent > config.max_unread_bytes:
            self._end(Verdict(None, f"left {config.max_unread_mib:g} MiB of its answers unread (--max-unread-mib)"))

    def held_bytes(self) -> int:
        """Messages that came in, whole or not, and have no answer yet; and answers that are not read yet."""
        waiting = self._conversation.session.held_bytes if self._conversation is not None else 0
        return self._unfinished_bytes + waiting + self._pipe.unsent

    def give_up(self) -> None:
        """End the session, and forget its requests at once: the server has no room, and nobody holds more."""
        told = no_room(self._config.max_buffered_mib)
        if self._frames is not None:
            self._frames.abandon()
        self._unfinished_bytes = 0
        is_deaf = self._pipe.unsent > JOINED  # a peer that reads nothing would not read a close frame
        code = None if is_deaf else _TRY_AGAIN_LATER
        self._end(Verdict(code, told))
        self._reception.close_session(self)
        self._reception.enter(self)  # without a session now, it is cut with all others when the server stops
