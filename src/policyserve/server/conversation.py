"""One client's conversation: its session joined to the engine, the observers and the log, whatever the transport.

A transport hands in whole messages and is a sink for what goes out. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from policyserve.core.dialect import TOLD
from policyserve.core.effects import (
    Answered,
    BinaryPictures,
    Close,
    Dropped,
    Effect,
    EndEpisode,
    Failed,
    Mapped,
    Outcome,
    Reuse,
    Send,
    Submit,
)
from policyserve.core.errors import PolicyserveError, Refusal
from policyserve.core.events import Event
from policyserve.core.messages import VERSION_KEY, EncodedText, Message, Observation
from policyserve.core.observer import Observers
from policyserve.core.session import Session
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import Task
from policyserve.engine.engine import Engine, VersionedEngine
from policyserve.server.decoding import Decoder

_BUG = 1011  # a close code


class Sink(Protocol):
    """Where a conversation's messages go: a WebSocket, an HTTP answer, a file, a test's list."""

    def send(self, message: Message) -> None:
        """Send a whole message; a str is a text. What cannot be sent any more is dropped."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End the connection with a close code of RFC 6455. Nothing is sent after it."""
        ...


class Note(Protocol):
    """Logs a line. kind: lines of one kind are throttled together. event: what it is about, for programs."""

    def __call__(
        self, level: int, kind: str, text: str, *args: object, event: Event, cause: BaseException | None = None
    ) -> None: ...


class _Waiting:
    """A request on its way to the engine. ready: its observation's pictures are decoded, or error says why not."""

    __slots__ = ("error", "ready", "submit")

    def __init__(self, submit: Submit) -> None:
        self.submit = submit
        self.ready = not submit.is_encoded
        self.error: PolicyserveError | None = None


class Conversation:
    """Carries out what a session decides. number: names it in the log, to the engine and to observers.

    session: what it is at, to be looked at by whoever hands in messages; it is told things through here alone.
    decoder: where a request's encoded pictures are decoded. Requests that come meanwhile wait behind it.
    """

    def __init__(
        self,
        number: int,
        session: Session,
        sink: Sink,
        engine: Engine,
        observers: Observers,
        note: Note,
        decoder: Decoder | None = None,
    ) -> None:
        self.number = number
        self.session = session
        self._sink = sink
        self._engine = engine
        self._observers = observers
        self._note = note
        self._decoder = decoder or Decoder()
        self._waiting: deque[_Waiting] = deque()  # from the oldest whose pictures are being decoded on
        self._versions: VersionedEngine | None = None  # if answers tell which policy gave them
        self._is_over: PolicyserveError | None = None  # why nothing more goes to the engine

    def receive(self, message: Message | EncodedText, now: float) -> None:
        """A whole message arrived at `now` (time.monotonic). The views of its buffer are the policy's from here on."""
        session = self.session
        for tell in self._observers.message:
            tell(self.number, message, now)
        if session.dialect is not None:
            self._perform(session.receive(message, now))
            return
        effects = session.receive(message, now)
        if session.dialect is not None:
            for tell in self._observers.dialect:
                tell(self.number, session.dialect.name)
            event = Event("session_speaks", self.number, dialect=session.dialect.name)
            self._note(logging.INFO, "speaks", "session %d speaks %s", self.number, session.dialect.name, event=event)
        self._perform(effects)

    def serve(self, spec: PolicySpec, metadata: Mapping[str, Any]) -> None:
        """The policy is ready: greet where the dialect does, and read what came early."""
        self._perform(self.session.serve(spec, metadata))

    def fail(self, error: PolicyserveError) -> None:
        """End it for a reason that is no request's."""
        self._perform(self.session.fail(error))

    def note_silence(self) -> None:
        """The client has said nothing for as long as a client that speaks first would have needed."""
        if self.session.dialect is None and not self.session.has_begun:
            text, event = "session %d: no first frame, so it is greeted", Event("session_greeted", self.number)
            self._note(logging.INFO, "silent", text, self.number, event=event)
        self._perform(self.session.silence())

    def drain(self, error: PolicyserveError | None = None) -> None:
        """Answer what was accepted, then close: as `error` tells; None: since the server stops.

        With an error another policy may be behind the engine: what is not there yet was read for the one before.
        """
        self._is_over = self._is_over or error
        self._perform(self.session.drain(error))

    def leave(self, code: int, reason: str) -> None:
        """Close now, whatever has no answer yet."""
        self._perform(self.session.leave(code, reason))

    def lose(self) -> None:
        """The connection is gone: what has no answer yet needs none."""
        self.session.leave(1006, "")

    def forget(self) -> None:
        """Have the engine drop its requests, and what the policy remembers of it."""
        self._engine.forget(self.number)
        for episode in self.session.episodes:
            self._engine.forget(self._key(episode))

    def _key(self, episode: int) -> int | str:
        """What the engine knows an episode by; most sessions have one alone."""
        return f"{self.number}/{episode}" if episode else self.number

    def tell_version(self) -> None:
        """Have answers say which policy gave them, where the dialect has a place for what is not asked of it."""
        self._versions = self._engine if isinstance(self._engine, VersionedEngine) else None

    def _answer(self, ticket: int, outcome: Outcome, version: int | None = None) -> None:
        if version is not None and isinstance(outcome, Answered):
            extras = {**outcome.chunk.extras, VERSION_KEY: version}
            outcome = outcome._replace(chunk=outcome.chunk._replace(extras=extras))
        try:
            self._perform(self.session.answer(ticket, outcome, time.monotonic()))
        except Exception as error:  # a bug, or a sink's trouble: a client that is not told would wait for ever
            text, event = "session %d: an outcome was not delivered", Event("answer_lost", self.number)
            self._note(logging.ERROR, "undelivered", text, self.number, event=event, cause=error)
            self.session.leave(_BUG, "")
            self._sink.close(_BUG, "an answer could not be delivered")

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                if effect.chunk is not None:
                    for tell in self._observers.answer:
                        tell(self.number, effect.ticket, effect.chunk, effect.timing)
                for tell in self._observers.sent:
                    tell(self.number, effect.message)
                self._sink.send(effect.message)
            elif isinstance(effect, Submit):
                self._submit(effect)
            elif isinstance(effect, Reuse):
                for tell in self._observers.request:
                    tell(self.number, effect.ticket, effect.observation, effect.arrived_at)
            elif isinstance(effect, EndEpisode):
                self._engine.forget(self._key(effect.episode))
            elif isinstance(effect, Close):
                self._sink.close(effect.code, effect.reason)
            elif isinstance(effect, Failed):
                for tell in self._observers.refusal:
                    tell(self.number, effect.ticket, effect.error)
                self._log_failure(effect.error)
            elif isinstance(effect, Dropped):
                keys = ", ".join(repr(key[:60]) for key in effect.keys[:10])  # a client's texts: bounded, on one line
                text, event = "session %d: keys not in the spec dropped: %s", Event("keys_dropped", self.number)
                self._note(logging.INFO, "dropped", text, self.number, keys, event=event)
            elif isinstance(effect, Mapped):
                moves = ", ".join(move[:120] for move in effect.moves[:10])
                text, event = "session %d: keys taken: %s", Event("keys_mapped", self.number)
                self._note(logging.INFO, "mapped", text, self.number, moves, event=event)
            elif isinstance(effect, BinaryPictures):
                paths = ", ".join(repr(path[:60]) for path in effect.paths[:10])
                text = "session %d: uint8 pictures of 0 and 1 alone, not of 0 to 255: %s; were they scaled to 1 before?"
                event = Event("pictures_binary", self.number)
                self._note(logging.WARNING, "binary pictures", text, self.number, paths, event=event)

    def _submit(self, submit: Submit) -> None:
        if not submit.is_encoded and not self._waiting:
            self._hand_over(submit)
            return
        waiting = _Waiting(submit)
        self._waiting.append(waiting)
        if submit.is_encoded:
            self._decoder.decode(submit.observation, lambda decoded: self._note_decoded(waiting, decoded))

    def _note_decoded(self, waiting: _Waiting, decoded: Observation | PolicyserveError) -> None:
        waiting.ready = True
        if isinstance(decoded, PolicyserveError):
            waiting.error = decoded
        else:
            waiting.submit = waiting.submit._replace(observation=decoded, is_encoded=False)
        while self._waiting and self._waiting[0].ready:
            first = self._waiting.popleft()
            if self.session.closed:  # the engine has forgotten it
                continue
            error = first.error or self._is_over
            if error is None:
                self._hand_over(first.submit)
            else:
                self._answer(first.submit.ticket, error)

    def _hand_over(self, submit: Submit) -> None:
        for tell in self._observers.request:
            tell(self.number, submit.ticket, submit.observation, submit.arrived_at)
        task = Task(self._key(submit.episode), submit.observation, submit.batch_size)
        version = None if self._versions is None else self._versions.version_of(task.session)
        try:
            self._engine.submit(task, submit.arrived_at, lambda outcome: self._answer(submit.ticket, outcome, version))
        except PolicyserveError as error:
            self._answer(submit.ticket, error)

    def _log_failure(self, error: PolicyserveError) -> None:
        is_ours = error.blame == "server" and not error.retryable
        level, cause = (logging.ERROR, error.__cause__) if is_ours else (logging.WARNING, None)
        # A policy's own class of errors may have any code: those share their lines.
        kind = error.code if error.code in TOLD else "other"
        path = error.path if isinstance(error, Refusal) else None
        event = Event("request_refused", self.number, code=error.code, path=path)
        self._note(level, kind, "session %d: %s: %s", self.number, error.code, error, event=event, cause=cause)
