"""One client of GR00T's port: a connection of ZeroMQ's, and its session from the first request on.

A ZeroMQ client that asks is deaf until it has its answer. So each of its messages gets exactly one, whatever becomes of
the session: this module keeps account.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from policyserve.core.dialect import read_close_reason
from policyserve.core.events import Event
from policyserve.core.messages import Message
from policyserve.dialects.gr00t import Gr00t
from policyserve.dialects.gr00t.envelope import token_of, without_token
from policyserve.dialects.gr00t.session_half import told_error
from policyserve.server import routes
from policyserve.server.guards import Pace, no_room
from policyserve.server.handshake import Credentials
from policyserve.server.reception import Reception

if TYPE_CHECKING:
    from policyserve.server.config import ServerConfig
    from policyserve.server.conversation import Conversation

_UNAUTHORIZED = "Unauthorized: Invalid API token"  # as the original server says it
_GOING_AWAY, _TRY_AGAIN_LATER = 1001, 1013
_LARGE = 1 << 16  # bytes


class Gr00tPeer:
    """A client. number: below 0; its session's from the first request on.

    write: sends frames to it. end: cuts its connection. path: where its policy is. unfinished: how many bytes came that
    are no whole message yet.
    """

    def __init__(
        self,
        number: int,
        address: str,
        peer: str,
        reception: Reception,
        config: ServerConfig,
        write: Callable[[Sequence[bytes]], object],
        end: Callable[[], object],
        path: str = "/",
    ) -> None:
        self.number = number
        self.address = address
        self.peer = peer
        self.receiving_s = 0.0
        self.unfinished = 0
        self.asked_at = 0.0  # when its newest message came
        self._reception = reception
        self._config = config
        self._write = write
        self._end = end
        self._path = path
        self._conversation: Conversation | None = None
        self._owed: deque[Sequence[bytes]] = deque()  # what stands before the answers that it waits for
        self._pace = Pace()
        self._refused = 0  # messages that asked for nothing
        self._late: deque[Sequence[bytes]] = deque()  # answers that wait, since it sends many that ask for nothing
        self._is_lost = False

    @property
    def pending(self) -> int:
        """Messages that have no answer yet."""
        return len(self._owed) + len(self._late)

    @property
    def has_session(self) -> bool:
        """Whether it has asked for something."""
        return self._conversation is not None

    def take(self, route: Sequence[bytes], message: memoryview, now: float) -> None:
        """A whole message came. route: the frames to put before its answer."""
        self.asked_at = now
        if self._conversation is not None and self._conversation.session.closed:
            self._leave_session()
        self._owed.append(route)
        token = token_of(message, self._config) if self._looks_for_key else ""
        refusal = self._refusal(token)
        if refusal is not None:
            self._refuse(refusal)
        elif self._conversation is not None:  # else it is over already, and everybody told
            message = without_token(message, token)
            self._reception.grow(len(message), are_large=len(message) > _LARGE)
            session = self._conversation.session
            before = session.refused
            self._conversation.receive(message, now)
            self._refused += session.refused - before
        verdict = self._pace.count(now, self._refused)
        if verdict is not None:
            self.cut(verdict.reason)
        elif self.pending > 2 * self._config.max_pending:
            self.cut(f"{self.pending} requests wait for their answers, and more come")

    def cut(self, reason: str) -> None:
        """End its connection, and say why in the log."""
        if self._conversation is not None:
            event = Event("session_ended", self.number, self.peer)
            self._note(logging.WARNING, "ended", "session %d: %s", self.number, reason, event=event)
        else:
            event = Event("connection_cut", peer=self.peer)
            self._note(logging.WARNING, "cut", "cut peer=%s: %s", self.peer, reason, event=event)
        self.abort()

    def lose(self) -> None:
        """Its connection is gone."""
        self._is_lost = True
        self._owed.clear()
        self._late.clear()
        if self._conversation is not None:
            self._conversation.lose()
        self._reception.leave(self)

    def leave(self, reason: str) -> None:
        """End its session; its connection stays, and its next request begins another one."""
        if self._conversation is not None:
            event = Event("session_ended", self.number, self.peer, code=_GOING_AWAY)
            self._note(logging.INFO, "ended", "session %d: %s", self.number, reason, event=event)
            self._conversation.leave(_GOING_AWAY, reason)

    # What the reception and a conversation know it by

    def send(self, message: Message) -> None:
        """Answer the oldest message without an answer; what answers none is not sent."""
        if self._owed:
            data = message.encode("utf-8", "replace") if isinstance(message, str) else bytes(message)
            self._answer([*self._owed.popleft(), data])

    def close(self, code: int, reason: str) -> None:
        """Tell all that wait why there will be no answer; the session is over."""
        text, told = read_close_reason(code, reason)
        while self._owed:
            self._answer([*self._owed.popleft(), told_error(f"{told or 'not_ready'}: {text or 'the session is over'}")])
        self._leave_session()

    def abort(self) -> None:
        """Cut its connection at once."""
        self._end()

    def expect_first_message(self, patience_s: float | None) -> None:
        """Nothing: its session begins with a message."""

    def held_bytes(self) -> int:
        """Messages that came in, whole or not, and have no answer yet."""
        waiting = self._conversation.session.held_bytes if self._conversation is not None else 0
        return self.unfinished + waiting

    def give_up(self) -> None:
        """End its session, since the server has no room and nobody holds more."""
        told = no_room(self._config.max_buffered_mib)
        if self._conversation is not None:
            self._conversation.leave(_TRY_AGAIN_LATER, f"{told} [overloaded]")
        if self.unfinished > _LARGE:
            self.cut(told)

    # Inside

    def _answer(self, frames: Sequence[bytes]) -> None:
        """Send an answer; later, to a peer that sends many messages that ask for nothing: it waits for its answers."""
        if self._pace.wait_s <= 0 and not self._late:
            self._write(frames)
            return
        self._late.append(frames)
        if len(self._late) == 1:
            asyncio.get_running_loop().call_later(self._pace.wait_s, self._catch_up)

    def _catch_up(self) -> None:
        while self._late and not self._is_lost:
            self._write(self._late.popleft())

    @property
    def _looks_for_key(self) -> bool:
        """Whether a message's key matters: it may be one of ours, and stands in no recording."""
        return bool(self._reception.admission.keys) or self._config.record is not None

    def _refusal(self, token: str) -> routes.Response | None:
        """Why a message is not taken: it has no key of ours, or there is no session for it. Opens the session."""
        credentials = Credentials(authorization=f"Bearer {token}" if token else "")
        if self._conversation is not None:
            is_fine = self._reception.admission.key_name(credentials) is not None
            return None if is_fine else routes.text(401, "an API key that is not known here")
        dialect = Gr00t(is_n15=self._config.gr00t_n15)
        opened = self._reception.open_session(self, self._path, credentials, dialect=dialect)
        if isinstance(opened, routes.Response):
            return opened
        self._conversation = opened
        self._reception.start_session(self)
        return None

    def _refuse(self, refusal: routes.Response) -> None:
        """Answer the newest message, which is not taken."""
        reason = self._reception.note_refused(self, refusal)
        self._refused += 1
        told = _UNAUTHORIZED if refusal.status == 401 else f"unavailable: {reason}"
        self._answer([*self._owed.pop(), told_error(told)])

    def _leave_session(self) -> None:
        """The session is over; the client stays connected, and may begin another."""
        if self._conversation is not None:
            self._conversation = None
            self._reception.close_session(self)

    def _note(self, level: int, kind: str, text: str, *args: object, event: Event) -> None:
        self._reception.note(self.address, level, kind, text, *args, event=event)
