"""Who is connected and who may come in: peers that have no session yet, and those that have one.

The reception knows its peers by protocol alone, so that every transport can bring its own. Everything here runs in the
event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from policyserve import dialects
from policyserve.core.callbacks import do_nothing
from policyserve.core.dialect import Dialect, DialectChoice
from policyserve.core.errors import PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observers, SessionFacts
from policyserve.core.session import Session
from policyserve.core.spec import PolicySpec
from policyserve.engine.engine import Change
from policyserve.observe.counters import Counters
from policyserve.server import greeting, routes
from policyserve.server.admission import Admission
from policyserve.server.catalogue import Catalogue, Target
from policyserve.server.config import ServerConfig
from policyserve.server.conversation import Conversation, Note
from policyserve.server.decoding import Decoder
from policyserve.server.guards import Budget
from policyserve.server.handshake import Credentials, PageRequest
from policyserve.server.notes import Notes
from policyserve.server.pages import make_routes, stage_of
from policyserve.server.peers import Peer, SessionPeer
from policyserve.server.served import Served

log = Log(__name__)

_AUTO = dialects.Auto()


class _Open(NamedTuple):
    """A session and who it is with."""

    peer: SessionPeer
    conversation: Conversation
    facts: SessionFacts  # at its opening
    opened_at: float  # time.monotonic
    asks_images: str  # in its handshake
    served: Served  # its policy
    target: Target[Served]  # where its path led
    note: Note  # how its lines are logged


class SessionState(NamedTuple):
    """An open session at this moment. pending: its requests without an answer. age_s: since it was opened."""

    facts: SessionFacts
    pending: int
    age_s: float


class Reception:
    """Knows the peers of one server, and the policies that they come for.

    routes: what its plain HTTP requests get.
    """

    def __init__(
        self,
        config: ServerConfig,
        catalogue: Catalogue[Served],
        observers: Observers,
        counters: Counters,
        admission: Admission,
    ) -> None:
        self.admission = admission
        self.catalogue = catalogue
        for served in catalogue:
            served.on_settled, served.on_changed = self._start_all, self._change
        self.routes = make_routes(catalogue, counters, config)
        self.everybody_left = asyncio.Event()
        self.everybody_left.set()
        self._config = config
        self._observers = observers
        self._sessions: dict[int, _Open] = {}
        self._waiting: dict[int, Peer] = {}  # those without a session, the oldest first
        self._opened = 0  # sessions until now
        self.note = Notes(log).note
        self.on_relief: Callable[[], object] = do_nothing  # called when peers were ended for want of room
        self._budget = Budget(config.max_buffered_bytes, lambda: self.peers, lambda: self.on_relief())
        self._is_closed = False
        self.decoder = Decoder()
        self.large_bytes = 0  # of large messages and unread answers, since the start
        # Told of connections that get no session: the peer, a code, why.
        self.on_refused: Callable[[str, str, str], object] = do_nothing

    @property
    def stage(self) -> str:
        """What the first policy that cannot answer is at; empty while all can."""
        return stage_of(self.catalogue)

    @property
    def conversations(self) -> Sequence[Conversation]:
        """Those that are open, the oldest first."""
        return [session.conversation for session in self._sessions.values()]

    @property
    def peers(self) -> Sequence[SessionPeer]:
        """Connections that have a session, the oldest first."""
        return [session.peer for session in self._sessions.values()]

    @property
    def sessions(self) -> Sequence[SessionFacts]:
        """Who has a session, the oldest first, with the dialects that are known by now."""
        known = [(session.facts, session.conversation.session.dialect) for session in self._sessions.values()]
        return [facts._replace(dialect=dialect.name) if dialect else facts for facts, dialect in known]

    def session_states(self) -> list[SessionState]:
        """Who has a session and how far it is, the oldest first."""
        now = time.monotonic()
        opened = self._sessions.values()
        told = zip(self.sessions, opened, strict=True)
        return [SessionState(facts, one.conversation.session.pending, now - one.opened_at) for facts, one in told]

    def peer_of(self, session: int) -> str:
        """Who a session is with; empty of one that is over."""
        opened = self._sessions.get(session)
        return opened.facts.peer if opened is not None else ""

    def spec_of(self, session: int) -> PolicySpec | None:
        """What a session's policy takes and gives; None where it is over, or the policy is not ready."""
        opened = self._sessions.get(session)
        return opened.served.spec if opened is not None else None

    def receiving_s(self, session: int) -> float:
        """How long its newest message took to come in."""
        opened = self._sessions.get(session)
        return opened.peer.receiving_s if opened is not None else 0.0

    @property
    def waiting(self) -> int:
        """Peers that have no session yet."""
        return len(self._waiting)

    def enter(self, peer: Peer) -> None:
        """Note a new connection. If too many have no session, cut the one that has waited longest."""
        self._waiting[peer.number] = peer
        if self._is_closed:  # it came while the listener was being closed
            peer.abort()
        if len(self._waiting) > self._config.max_handshakes:
            oldest = self._waiting.pop(next(iter(self._waiting)))
            text = "cut peer=%s: %d connections are no session, the most this server takes"
            event, most = Event("connection_cut", peer=oldest.peer), self._config.max_handshakes
            self.note(oldest.address, logging.WARNING, "cut", text, oldest.peer, most, event=event)
            oldest.abort()

    def leave(self, peer: Peer) -> None:
        """The connection is gone: drop its requests and its policy state."""
        self._waiting.pop(peer.number, None)
        self.close_session(peer)

    def open_session(
        self,
        peer: SessionPeer,
        path: str,
        credentials: Credentials,
        asks_images: str = "",
        choice: DialectChoice | None = None,
        dialect: Dialect | None = None,
    ) -> Conversation | routes.Response:
        """A conversation for a peer whose handshake is fine, or the refusal to send instead.

        asks_images: the formats of encoded pictures that it would send, see greeting.with_images. choice: how its first
        message tells its dialect, whatever the path; None: as on a WebSocket. dialect: of a transport that knows it.
        """
        target = self._target(peer, path, credentials)
        if isinstance(target, routes.Response):
            return target
        served = self.catalogue.choose(target)
        if dialect is None and choice is None:
            dialect = target.dialect or greeting.pinned_dialect(served.config)
        session = _session(served, dialect, choice or _AUTO)
        self._waiting.pop(peer.number, None)
        self._opened += 1
        peer.number = self._opened
        note = partial(self.note, peer.address, is_brief=choice is not None)
        conversation = Conversation(peer.number, session, peer, served.engine, served.observers, note, self.decoder)
        name = session.dialect.name if session.dialect else "auto"
        key = self.admission.key_name(credentials) or ""
        facts = SessionFacts(peer.number, peer.peer, name, key, served.name if served.is_named else "")
        self._sessions[peer.number] = _Open(
            peer, conversation, facts, time.monotonic(), asks_images, served, target, note
        )
        served.sessions.add(peer.number)
        self.admission.enter(peer.address)
        self.everybody_left.clear()
        for tell in served.observers.session_opened:
            tell(facts)
        of_policy = f" policy={served.name}" if served.is_named else ""
        drawn = f" route={target.route}" if target.route else ""
        by_key = f" key={key}" if key else ""
        text, values = "session %d opened dialect=%s peer=%s%s", (peer.number, name, peer.peer)
        event = Event("session_opened", peer.number, peer.peer, name, policy=facts.policy or None)
        note(logging.INFO, "opened", text, *values, of_policy + drawn + by_key, event=event)
        return conversation

    def _target(self, peer: Peer, path: str, credentials: Credentials) -> Target[Served] | routes.Response:
        """Where the path leads, for a peer that may go there; else the refusal to send."""
        if self._is_closed:
            return routes.text(503, "the server is stopping")
        refusal = self.admission.refusal(credentials, peer.address)
        if refusal is not None:
            return refusal
        target = self.catalogue.resolve(path)
        if target is None:
            return routes.text(404, self.catalogue.unknown(path))
        return self._no_place(target, self.admission.key_name(credentials) or "") or target

    def _no_place(self, target: Target[Served], key: str) -> routes.Response | None:
        """The refusal of a session that the policies at its path do not take; of a split, all must take it."""
        for served in target.policies:
            if not served.may_use(key):
                return routes.text(
                    403, f"this API key may not use {served.name}: its keys are set under policies.{served.name}"
                )
            most = served.max_sessions
            if most is not None and len(served.sessions) >= most:
                return routes.text(503, f"{most} sessions of {served.name} are open, the most that it takes")
        return None

    def start_session(self, peer: SessionPeer) -> None:
        """The handshake is through: serve at once if the policy is ready, or tell why it never will be."""
        opened = self._sessions.get(peer.number)
        if opened is None:
            return
        conversation, served = opened.conversation, opened.served
        if served.failure is not None:
            conversation.fail(served.failure)
        elif served.spec is not None:
            told = self._greeting_of(opened)
            metadata = greeting.with_images(told, opened.asks_images)
            if metadata is not told:
                self.decoder.expect()
            conversation.serve(served.spec, metadata)
            peer.expect_first_message(greeting.patience_s(conversation.session, served.spec, served.config))

    def _greeting_of(self, opened: _Open) -> Mapping[str, Any]:
        """What its greeting tells: of a session that was drawn no more than its route wants to be told."""
        served, target = opened.served, opened.target
        if not target.route:
            return served.metadata
        is_blind = self.catalogue.routes[target.route].split.is_blind
        others = [one.metadata for one in target.policies if one is not served]
        return greeting.of_split(served.metadata, others, None if is_blind else served.name)

    def close_session(self, peer: Peer) -> None:
        """Drop a session's requests and its policy state; its connection may have an end to come."""
        opened = self._sessions.pop(peer.number, None)
        if opened is None:
            return
        self.admission.leave(peer.address)
        if not self._sessions:
            self.everybody_left.set()
        opened.served.sessions.discard(peer.number)
        opened.conversation.forget()
        for tell in opened.served.observers.session_closed:
            tell(peer.number)
        event = Event("session_closed", peer.number, peer.peer)
        opened.note(logging.INFO, "closed", "session %d closed", peer.number, event=event)

    def close(self) -> None:
        """Open no session any more."""
        self._is_closed = True

    def abort_all(self) -> None:
        """Cut off whoever is still connected."""
        for peer in [*self.peers, *self._waiting.values()]:
            peer.abort()

    def grow(self, count: int, are_large: bool = True) -> None:
        """`count` bytes more are held for some session; whoever holds most may lose its own to make room."""
        if are_large:
            self.large_bytes += count
        self._budget.grow(count)

    def respond(self, asked: PageRequest) -> routes.Response:
        """Answer a plain HTTP request."""
        return self.routes.respond(asked.method, asked.path, asked.query, self.admission.caller(asked.credentials))

    def note_refused(self, peer: Peer, refusal: routes.Response) -> str:
        """Log what a peer is refused, and tell it to whom it concerns; returns the reason."""
        reason, status = refusal.body.decode("utf-8", "replace").strip(), refusal.status
        level = logging.WARNING if status in (401, 403) else logging.INFO
        text, event = "refused peer=%s: %d %s", Event("connection_refused", peer=peer.peer, code=status)
        self.note(peer.address, level, f"refused {status}", text, peer.peer, status, reason, event=event)
        self.on_refused(peer.peer, f"http_{status}", reason)
        return reason

    def _start_all(self, served: Served) -> None:
        """A policy is ready, or will never be: its sessions are served, or told."""
        for opened in self._of(served):
            self.start_session(opened.peer)

    def _change(self, served: Served, change: Change) -> None:
        """Another policy answers from now on; what becomes of the sessions of the one before is the change's to say."""
        if change.closing is not None:
            self._close_all(served, change.closing)
        elif change.sessions_move and served.spec is not None:
            for opened in self._of(served):
                opened.conversation.serve(
                    served.spec, greeting.with_images(self._greeting_of(opened), opened.asks_images)
                )

    def _close_all(self, served: Served, error: PolicyserveError) -> None:
        closing = self._of(served)
        for opened in closing:
            opened.conversation.drain(error)
        if closing:
            count = "1 session is" if len(closing) == 1 else f"{len(closing)} sessions are"
            event = Event("policy_changed", policy=served.label)
            log.info("%s closed, so that clients connect again", count, event=event)

    def _of(self, served: Served) -> list[_Open]:
        """The sessions of a policy, the oldest first."""
        return [self._sessions[number] for number in sorted(served.sessions)]


def _session(served: Served, dialect: Dialect | None, choice: DialectChoice) -> Session:
    """A session with a policy, as its settings want it."""
    config = served.config
    return Session(
        dialect,
        choice=choice,
        max_pending=config.max_pending,
        debug_wire=config.debug_wire,
        limits=config,
        serve_steps=config.serve_steps,
        chunk_size=config.chunk_size,
        fit=served.key_map.fit,
    )
