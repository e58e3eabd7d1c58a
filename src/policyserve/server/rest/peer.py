"""A connection that asks by HTTP: requests with bodies, one after the other, each a message of its session.

A connection has a session, as others have, so that keys, limits, observers and recordings see it. It is opened by the
first request's head, before its body is read; another key or policy, or a body of another family, opens another one.
Several requests that come at once wait in their order. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

from policyserve.core.callbacks import do_nothing
from policyserve.core.events import Event
from policyserve.core.messages import Message
from policyserve.dialects.rest.bodies import ReplyBody, RequestBody
from policyserve.dialects.rest.recognition import ByBody, read_body
from policyserve.server import routes
from policyserve.server.config import ServerConfig
from policyserve.server.conversation import Conversation
from policyserve.server.guards import no_room, not_whole
from policyserve.server.handshake import Asked, BodyRequest, Handshake, PageRequest, UpgradeRequest
from policyserve.server.pipe import Pipe
from policyserve.server.reception import Reception
from policyserve.server.rest.body import Body
from policyserve.server.turns import Share

_CLOSE_TIMEOUT_S = 5.0  # for the peer to read its last answer
_READ_AT_ONCE = 1 << 19  # bytes of a body that takes the event loop some 2 ms; larger ones a thread reads
_LATER = (1001, 1013)  # close codes of what may succeed later
_BY_BODY = ByBody()

# Where the connection is in its requests. answered: the next one has its turn soon. over: what comes is dropped.
Stage: TypeAlias = Literal["idle", "head", "body", "answering", "answered", "over"]


class RestPeer:
    """One such connection. It is begun with its first request's head, and gets all bytes that come from then on."""

    def __init__(
        self,
        number: int,
        address: str,
        peer: str,
        handshake: Handshake,
        pipe: Pipe,
        reception: Reception,
        config: ServerConfig,
        share: Share,
    ) -> None:
        self.number, self.address, self.peer = number, address, peer
        self.receiving_s = 0.0  # how long its newest body took to come in
        self._handshake, self._pipe, self._share = handshake, pipe, share
        self._reception, self._config = reception, config
        self._conversation: Conversation | None = None
        self._whose: tuple[str | None, str] = None, ""  # the key and the policy's path that its session was opened with
        self._asked: BodyRequest | None = None  # its newest request
        self._body: Body | None = None  # while it comes in
        self._reading_bytes = 0  # of a body that a thread reads
        self._stage: Stage = "head"
        self._has_ended_its_side = False
        self._timer: asyncio.TimerHandle | None = None

    # Bytes in

    def take(self, asked: Asked | None) -> None:
        """What it asks for; None: the rest of its request's head is to come."""
        if isinstance(asked, BodyRequest):
            self._begin(asked)
        elif isinstance(asked, PageRequest):
            self._answer(self._reception.respond(asked), closes=True)
        elif isinstance(asked, UpgradeRequest):
            self._refuse(routes.text(400, "a WebSocket begins with its connection: open another one for it"))
        elif asked is not None:
            self._refuse(asked)

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        if self._stage == "over":
            return
        if self._stage == "body":
            self._read(data)
            if self._stage == "body" and self._share.is_spent(len(data)):
                self._pause()
        elif self._stage in ("answering", "answered"):
            self._handshake.keep(data)
            self._pipe.set_reading(False)  # it has its turn when the one before is answered
        else:
            if self._stage == "idle":
                self._expect_head()
            self.take(self._handshake.feed(data))

    def end_its_side(self) -> bool:
        """It sends nothing more; returns whether it has an answer to come."""
        self._has_ended_its_side = self._stage == "answering"
        return self._has_ended_its_side

    def lose(self) -> None:
        """The connection is gone."""
        self._stage, self._body = "over", None
        self._set_timer(None)
        if self._conversation is not None:
            self._conversation.lose()
        self._reception.leave(self)

    def set_slow(self, is_slow: bool) -> None:
        """It leaves its answers unread, or has read them: the next request waits for that."""
        if is_slow and self._stage != "over":
            self._set_timer(self._config.unread_timeout_s, self.abort)
        elif self._stage == "answered":
            self._next()

    def _begin(self, asked: BodyRequest) -> None:
        self._asked, self._stage = asked, "body"
        refusal = self._admit(asked)
        if self._stage != "body":  # there is no policy, and it was told so
            return
        self._body = Body(self._config.max_body_bytes, time.monotonic())
        refusal = refusal or self._body.refusal_of_size(asked.size)
        if refusal is not None:
            self._refuse(refusal)
            return
        if asked.is_waiting:
            self._pipe.write(self._handshake.go_ahead())
        self._set_timer(self._config.message_timeout_s, self._time_out_body)
        self._read(b"")

    def _admit(self, asked: BodyRequest) -> routes.Response | None:
        """Have a session that whoever asks may have; gives the refusal to send if there is none."""
        admission = self._reception.admission
        policy_path = asked.path.rpartition("/")[0] or "/"
        whose = admission.key_name(asked.credentials), policy_path
        if self._conversation is not None:
            refusal = admission.refusal_of(asked.credentials)
            if refusal is not None or whose == self._whose:
                return refusal
            self._leave_session()
        self._whose = whose
        opened = self._reception.open_session(self, policy_path, asked.credentials, choice=_BY_BODY)
        if isinstance(opened, routes.Response):
            return opened
        self._conversation = opened
        self._reception.start_session(self)
        return None

    def _leave_session(self) -> None:
        """The session is over; the connection goes on."""
        assert self._conversation is not None
        self._conversation.lose()
        self._conversation = None
        self._reception.close_session(self)

    def _read(self, data: bytes) -> None:
        """Read what has come of a body, as much as one turn takes."""
        body = self._body
        assert body is not None
        held = len(body.data)
        outcome = body.read(self._handshake, data)
        if len(body.data) > held:
            self._reception.grow(len(body.data) - held)
        if self._stage != "body":  # there was no room for it
            return
        if isinstance(outcome, routes.Response):
            self._refuse(outcome)
        elif outcome == "whole":
            self._end_body(body)
        elif outcome == "more":
            self._pause()
        else:
            self._pipe.set_reading(True)

    def _pause(self) -> None:
        """Others have their turn first."""
        self._pipe.set_reading(False)
        asyncio.get_running_loop().call_soon(self._go_on_reading)

    def _go_on_reading(self) -> None:
        if self._stage == "body":
            self._read(b"")

    def _end_body(self, body: Body) -> None:
        assert self._asked is not None
        self._body, self._stage = None, "answering"
        self._set_timer(None)
        self._pipe.set_reading(True)  # a peer that goes away is noticed
        self.receiving_s = time.monotonic() - body.began_at
        read = partial(read_body, body.data, self._asked.path, self._config, self._config.http_errors == "plain")
        if len(body.data) <= _READ_AT_ONCE:
            self._hand_in(read())
        else:
            self._reading_bytes = len(body.data)
            self._reception.decoder.run(read, self._hand_in)

    def _hand_in(self, body: RequestBody) -> None:
        """The body was read: it is a message."""
        self._reading_bytes = 0
        if self._stage != "answering" or self._conversation is None or self._asked is None:
            return  # it is gone
        dialect = self._conversation.session.dialect
        if dialect is not None and body.family not in ("", dialect.name):
            self._leave_session()
            refusal = self._admit(self._asked)
            if refusal is not None:
                self._refuse(refusal)
                return
        session = self._conversation.session
        counted = session.received_bytes + len(body)
        self._conversation.receive(body, time.monotonic())
        if session.received_bytes > counted:
            self._reception.grow(session.received_bytes - counted, are_large=False)

    # Its session's sink

    def send(self, message: Message) -> None:
        """Answer the request with a message's bytes; what answers no request is dropped."""
        if self._stage not in ("body", "answering"):
            return
        if isinstance(message, ReplyBody):
            response = routes.Response(message.status, bytes(message), headers=message.headers)
        else:
            response = routes.Response(200, message.encode() if isinstance(message, str) else bytes(message))
        is_last = self._has_ended_its_side and not self._handshake.has_more
        self._answer(response, closes=is_last or self._stage == "body")

    def close(self, code: int, reason: str) -> None:
        """End the connection; a request without an answer is told why."""
        if self._stage in ("body", "answering"):
            self._answer(routes.text(503 if code in _LATER else 500, reason or "the session ended"), closes=True)
        elif self._stage != "over":
            self._end()

    def expect_first_message(self, patience_s: float | None) -> None:
        """Nothing: its requests have time-outs of their own."""

    def abort(self) -> None:
        """Cut the connection at once."""
        self._pipe.abort()

    # Answers

    def _answer(self, response: routes.Response, closes: bool) -> None:
        self._pipe.write(self._handshake.answer(response, closes))
        self._body = None
        if closes or not self._handshake.may_go_on:
            self._end()
            return
        self._stage = "answered"
        asyncio.get_running_loop().call_soon(self._next)  # of many requests at once, one in a turn

    def _next(self) -> None:
        """The request is answered: the next one has its turn."""
        if self._stage != "answered" or self._pipe.is_slow:
            return
        asked = self._handshake.go_on()
        self._expect_head()
        if asked is None and not self._handshake.has_more:
            self._stage = "idle"
            self._set_timer(self._config.keep_alive_s, self._end)
        self._pipe.set_reading(True)
        self.take(asked)

    def _expect_head(self) -> None:
        self._stage = "head"
        self._set_timer(self._config.handshake_timeout_s, self._time_out_head)

    def _refuse(self, response: routes.Response) -> None:
        """Answer what is no message, and end: the rest of it may be of any length."""
        self._reception.note_refused(self, response)
        self._answer(response, closes=True)

    def _time_out_head(self) -> None:
        self._refuse(routes.text(408, f"no request within {self._config.handshake_timeout_s:g} s"))

    def _time_out_body(self) -> None:
        self._refuse(routes.text(408, not_whole("a body", self._config.message_timeout_s)))

    def _end(self) -> None:
        """Nothing more is read or written; what the peer still sends is dropped, so that it sees its answer."""
        self._stage = "over"
        self._pipe.set_reading(True)
        if self._has_ended_its_side:
            self._pipe.close()
        elif self._pipe.is_open:
            self._pipe.half_close()
            self._set_timer(_CLOSE_TIMEOUT_S, self.abort)

    def _set_timer(self, delay_s: float | None, callback: Callable[[], object] = do_nothing) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, callback)

    # Memory

    def held_bytes(self) -> int:
        """Its body as far as it has come, what has no answer yet, and answers that are not read yet."""
        waiting = self._conversation.session.held_bytes if self._conversation is not None else 0
        coming = len(self._body.data) if self._body is not None else self._reading_bytes
        return coming + waiting + self._pipe.unsent

    def give_up(self) -> None:
        """End it: the server has no room, and nobody holds more."""
        told = no_room(self._config.max_buffered_mib)
        event = Event("session_ended", self.number, self.peer, code=503)
        self._reception.note(self.address, logging.WARNING, "ended", "session %d: %s", self.number, told, event=event)
        self.close(1013, told)
        if self._conversation is not None:
            self._leave_session()
        self._reception.enter(self)  # without a session now, it is cut with all others when the server stops
