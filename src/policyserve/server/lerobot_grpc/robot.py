"""One client on LeRobot's port: its newest observation, the call that waits for actions, and its session.

The client sends observations whenever it likes and waits for actions in another call. Of observations only the newest
counts: one is handed to the session when a call waits and the one before is answered. So there is one unfinished
observation of a client's, one whole one, one at the policy and one answer, however it behaves. Everything here runs in
the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

from policyserve.core.errors import NotReady, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.messages import Message
from policyserve.dialects.lerobot.dialect import LeRobot
from policyserve.dialects.lerobot.meeting import check_features, policy_of
from policyserve.dialects.lerobot.messages import Parts
from policyserve.dialects.lerobot.setup import PolicySetup, read_setup
from policyserve.server import routes
from policyserve.server.config import ServerConfig
from policyserve.server.conversation import Conversation
from policyserve.server.guards import no_room, not_whole, nothing_asked
from policyserve.server.handshake import Credentials
from policyserve.server.lerobot_grpc import status
from policyserve.server.lerobot_grpc.status import Refused
from policyserve.server.reception import Reception
from policyserve.server.served import Served

_HELD_S = 10.0  # how long a call waits for an observation before it is told that there are no actions
_FORGOTTEN = "call Ready and SendPolicyInstructions first: start the client again"
_ENDED = "the session has ended meanwhile"
_GOING_AWAY = 1001


class Robot:
    """One gRPC peer; it is a SessionPeer (server/peers.py). address: its IP address. peer: the same with its port.

    calls: those under way. was_cut: its last call was cancelled, as it is when the connection ends.
    """

    def __init__(self, address: str, peer: str, reception: Reception, config: ServerConfig) -> None:
        self.number = -1
        self.address = address
        self.peer = peer
        self.receiving_s = 0.0
        self.calls = 0
        self.was_cut = False
        self.setup: PolicySetup | None = None
        self.timer: asyncio.TimerHandle | None = None  # for its end
        self._credentials = Credentials()
        self._setup_data = b""
        self._reception = reception
        self._config = config
        self._conversation: Conversation | None = None
        self._parts: Parts | None = None  # of an observation that is not whole yet
        self._newest: bytearray | None = None  # an observation that the policy has not been given
        self._asking: asyncio.Future[bytes | Refused] | None = None  # the call that waits for actions
        self._outcome: bytes | Refused | None = None  # that no call has taken
        self._is_owed = False  # an observation went with its session, and no call was told
        self._idle: asyncio.TimerHandle | None = None

    # Calls

    def reset(self) -> None:
        """It begins anew: the policy forgets what it remembers of it, and of nobody else."""
        self.end_session()
        self.setup, self._is_owed = None, False
        self._settle(b"")

    def adopt(self, other: Robot) -> None:
        """Go on for a client whose connection was lost, as what it said of itself."""
        self.setup, self._setup_data, self._credentials = other.setup, other._setup_data, other._credentials

    def begin(self, data: bytes, credentials: Credentials) -> None:
        """Open a session for what the client says of itself; the policy is ready. Raises Refused."""
        self.reset()
        try:
            setup = read_setup(data, self._config)
            self._setup_data, self._credentials = data, credentials
            self._open(setup)
        except PolicyserveError as error:
            raise self._noted(status.of_error(error)) from None
        self.setup = setup

    async def receive(self, stream: AsyncIterator[bytes]) -> None:
        """Take an observation, part by part; raises Refused."""
        if self._conversation is None:
            self._reopen()
        if self._parts is not None:
            raise Refused("RESOURCE_EXHAUSTED", "send one observation at a time: another is not whole yet")
        parts = self._parts = Parts(self._config.max_frame_bytes)
        timeout_s, began_at = self._config.message_timeout_s, time.monotonic()
        try:
            is_whole = await asyncio.wait_for(self._collect(stream, parts), timeout_s)
        except asyncio.TimeoutError:
            raise Refused("DEADLINE_EXCEEDED", not_whole("an observation", timeout_s)) from None
        except PolicyserveError as error:
            raise self._noted(status.of_error(error)) from None
        finally:
            if self._parts is parts:
                self._parts = None
        if not is_whole:
            raise Refused("INVALID_ARGUMENT", "bad_frame: expected an END behind the parts of an observation")
        if self._conversation is None:
            raise Refused("UNAVAILABLE", _ENDED)
        self.receiving_s = time.monotonic() - began_at
        self._newest = parts.data
        self._wait_idle()
        self._go_on()

    async def actions(self) -> bytes:
        """The pickled actions for its newest observation; empty where none comes. Raises Refused."""
        if self.setup is None:
            raise Refused("FAILED_PRECONDITION", _FORGOTTEN)
        if self._is_owed:  # it would wait for an answer that never comes, unless it sends another observation
            self._is_owed = False
            raise Refused("UNAVAILABLE", _ENDED)
        self._settle(b"")  # a call before it, of which the newest is answered
        future = self._asking = asyncio.get_running_loop().create_future()
        try:
            self._go_on()
            await asyncio.wait([future], timeout=_HELD_S)
            outcome = future.result() if future.done() else b""
        finally:
            if self._asking is future:
                self._asking = None
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    # A session's peer

    def send(self, message: Message) -> None:
        """An answer or, as a text, an error: what the call that waits gets, or the next one."""
        self._outcome = status.of_text(message) if isinstance(message, str) else bytes(message)
        self._go_on()

    def close(self, code: int, reason: str) -> None:
        """The session is over; a client that sends another observation gets a new one."""
        is_told = self._asking is not None
        self.end_session()
        self._is_owed = self._is_owed and not is_told
        self._settle(status.of_close(code, reason))

    def expect_first_message(self, patience_s: float | None) -> None:
        """It has asked already."""

    def abort(self) -> None:
        self.close(_GOING_AWAY, "the server is stopping")

    def held_bytes(self) -> int:
        held = [self._parts.data if self._parts is not None else b"", self._newest or b""]
        held.append(self._outcome if isinstance(self._outcome, bytes) else b"")
        waiting = self._conversation.session.held_bytes if self._conversation is not None else 0
        return waiting + sum(map(len, held))

    def give_up(self) -> None:
        """End the session: the server has no room, and nobody holds more."""
        told = no_room(self._config.max_buffered_mib)
        event = Event("session_ended", self.number, self.peer)
        self._note(logging.WARNING, "ended", "session %d: %s", self.number, told, event=event)
        self._leave(1013, told)

    def end_session(self) -> None:
        """Drop the session, if there is one, and all that waits for it."""
        pending = 0 if self._conversation is None else self._conversation.session.pending
        self._is_owed = self._is_owed or pending > 0 or self._newest is not None or self._outcome is not None
        self._parts = self._newest = self._outcome = None
        if self._idle is not None:
            self._idle.cancel()
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.lose()
            self._reception.close_session(self)

    # Inside

    def _open(self, setup: PolicySetup) -> None:
        served, dialect = self._served(setup), LeRobot(setup)
        if served.spec is None:
            raise served.failure or NotReady(f"{served.name} is {served.stage}")
        check_features(setup, served.spec, served.key_map.fit(dialect, served.spec), served.config)
        path = f"/{served.name}" if served.is_named else "/"
        opened = self._reception.open_session(self, path, self._credentials, dialect=dialect)
        if isinstance(opened, routes.Response):
            raise self._noted(status.of_response(opened))
        self._conversation, self._is_owed = opened, False
        self._reception.start_session(self)
        if self._conversation is None:
            raise Refused("UNAVAILABLE", _ENDED)
        opened.receive(memoryview(bytearray(self._setup_data)), time.monotonic())
        self._wait_idle()

    def _served(self, setup: PolicySetup) -> Served:
        """The policy that the client asks for; raises WireError."""
        by_name = {served.label: served for served in self._reception.catalogue if served.label}
        if not by_name:
            raise next((one.failure for one in self._reception.catalogue if one.failure), NotReady("still loading"))
        return by_name[policy_of(setup, by_name)]

    def _reopen(self) -> None:
        """Another session, after the one before was closed: the policy was loaded anew, say. Raises Refused."""
        if self.setup is None:
            raise Refused("FAILED_PRECONDITION", _FORGOTTEN)
        try:
            self._open(self.setup)
        except PolicyserveError as error:
            raise self._noted(status.of_error(error)) from None

    async def _collect(self, stream: AsyncIterator[bytes], parts: Parts) -> bool:
        async for message in stream:
            is_whole = parts.add(message)
            self._reception.grow(len(message))
            if self._parts is not parts:  # the session was ended to make room, or has begun anew
                raise Refused("UNAVAILABLE", _ENDED)
            if is_whole:
                return True
        return False

    def _go_on(self) -> None:
        """Give the call that waits its answer, or the session the newest observation."""
        if self._asking is None:
            return
        if self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            self._settle(outcome)
        elif self._newest is not None and self._conversation is not None and not self._conversation.session.pending:
            message, self._newest = self._newest, None
            self._conversation.receive(memoryview(message), time.monotonic())

    def _settle(self, outcome: bytes | Refused) -> None:
        """End the call that waits, if one does."""
        asking, self._asking = self._asking, None
        if asking is not None and not asking.done():
            asking.set_result(outcome)

    def _leave(self, code: int, reason: str) -> None:
        if self._conversation is not None:
            self._conversation.leave(code, reason)

    def _wait_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        idle_s = self._config.idle_timeout_s
        if idle_s is not None:
            self._idle = asyncio.get_running_loop().call_later(idle_s, self._end_if_idle, idle_s)

    def _end_if_idle(self, idle_s: float) -> None:
        is_busy = self._conversation is not None and self._conversation.session.pending > 0
        if is_busy or self._parts is not None or self._newest is not None:
            self._wait_idle()
        else:
            self._leave(_GOING_AWAY, nothing_asked(idle_s))

    def _noted(self, refused: Refused) -> Refused:
        """Log a refusal that no session logs."""
        event = Event("connection_refused", peer=self.peer, code=refused.status)
        text, values = "refused LeRobot's client peer=%s: %s", (self.peer, refused.text)
        self._note(logging.WARNING, f"refused {refused.status}", text, *values, event=event)
        self._reception.on_refused(self.peer, f"grpc_{refused.status.lower()}", refused.text)
        return refused

    @property
    def _note(self) -> Callable[..., None]:
        def note(level: int, kind: str, text: str, *args: object, event: Event) -> None:
            self._reception.note(self.address, level, kind, text, *args, event=event)

        return note
