"""One client's conversation with the server: messages in, effects out. Pure, and it never raises.

A session whose dialect is not known waits for the client's first message and recognises it by its content. silence()
tells it that none came in time; it greets then, since the client may be waiting for a greeting.

Rule 1: answers leave in the order of their requests, refusals among them. An answer that comes early waits.
Rule 2: nothing follows a Close. Messages and answers that come after it are dropped.
Rule 3: messages that come before the policy is ready are kept, up to the bound, and read when serve() is called.

Episodes, rows of chunks, and clients that want the newest answer alone: see episode_requests.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from policyserve.core.dialect import (
    ConversingDialect,
    Dialect,
    DialectChoice,
    close_code_of,
    close_reason,
)
from policyserve.core.early import MESSAGE_OVERHEAD, EarlyMessages
from policyserve.core.effects import Answered, Close, Effect, Failed, Outcome, Send, Submit
from policyserve.core.episode_requests import EpisodeRequests, Pending
from policyserve.core.errors import (
    NotReady,
    Overloaded,
    PolicyFailed,
    PolicyserveError,
    WireError,
    WrongDialect,
    failed,
    of_policy,
)
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, EncodedText, Message, Request, Unreadable
from policyserve.core.printable import type_name
from policyserve.core.reading import Fit, RequestReader
from policyserve.core.remarks import Remarks
from policyserve.core.spec import PolicySpec, ValidObservation
from policyserve.core.telling import Telling

_GLANCE = 4096  # bytes of a text that tell whose it is
_MOST_PER_LETTER = 4  # bytes of UTF-8


class Session:
    """The state of one conversation. dialect: None if `choice` finds it out by the first message.

    serve_steps: answer with one row of a chunk after the other, whatever the dialect; chunk_size: how many rows of one.
    fit: how a dialect's observations become those of a spec; None, or what it gives: they are taken as they are.
    """

    def __init__(
        self,
        dialect: Dialect | None,
        *,
        max_pending: int,
        choice: DialectChoice | None = None,
        debug_wire: bool = False,
        limits: WireLimits = DEFAULT_LIMITS,
        serve_steps: bool = False,
        chunk_size: int | None = None,
        fit: Fit | None = None,
    ) -> None:
        known = choice.greeter if dialect is None and choice is not None else dialect
        assert known is not None, "a session has a dialect or a way to find it"
        self.dialect = dialect
        self._telling = Telling(known, debug_wire)
        self.closed = False
        self.has_begun = False  # the client has sent a message
        self._choice = choice
        self._debug_wire = debug_wire
        self._metadata: Mapping[str, Any] = {}
        self._greeted = False
        self._max_pending = max_pending
        self._spec: PolicySpec | None = None
        self._limits = limits
        self._reader: RequestReader | None = None  # once both dialect and spec are known
        self._early = EarlyMessages()
        self.received_bytes = 0  # of all its messages so far, and of what was made of them
        self._pending: deque[Pending] = deque()
        self._tickets = 0
        self.refused = 0  # requests that were refused unread, or could not be read
        self._refusing = False  # a request was refused in a way that closes: what follows it is not read
        self._draining = False
        self._parting = (1001, "the server is stopping")  # the close code and reason once it is drained
        self._remarks = Remarks()
        self._serve_steps = serve_steps
        self._episodes = EpisodeRequests(self._pending, serve_steps, chunk_size)
        self._fit = fit

    @property
    def episodes(self) -> list[int]:
        """Those that the policy may remember something of."""
        return self._episodes.numbers

    @property
    def pending(self) -> int:
        """Requests that have no answer yet."""
        return len(self._pending) + len(self._early)

    @property
    def held_bytes(self) -> int:
        """What its messages that have no answer yet take, and answers that wait for an earlier one."""
        return self._early.held_bytes + sum(pending.size + _size_of(pending.outcome) for pending in self._pending)

    @property
    def received(self) -> int:
        """Requests so far, those included that wait for the policy to be ready."""
        return self._tickets + len(self._early)

    @property
    def answered(self) -> int:
        """Of them those that have their answer; they are the oldest, since answers leave in order."""
        return self._tickets - len(self._pending)

    def serve(self, spec: PolicySpec, metadata: Mapping[str, Any]) -> list[Effect]:
        """The policy is ready: greet where the dialect does, and read the messages that came early.

        Called again, another policy has taken its place: the next request is read for that one. Nobody is greeted anew.
        """
        self._spec, self._metadata = spec, metadata
        self._episodes.drop_rows()
        if self.closed:
            return []
        self._make_reader()
        effects = self._greet()
        early = self._early.take()
        self._refusing = self._refusing and not early
        for message, arrived_at in early:
            if not self._refusing:
                effects += self._receive(message, arrived_at)
        return effects

    def receive(self, message: Message | EncodedText, now: float) -> list[Effect]:
        """A whole message arrived at `now` (seconds, any monotonic clock)."""
        if self.closed or self._refusing or self._draining:
            return []
        if not self.has_begun:
            self.has_begun = True
            return [*self._settle(message), *self._receive(message, now)]
        return self._receive(message, now)

    def silence(self) -> list[Effect]:
        """The client has said nothing for as long as a client that speaks first would have needed."""
        if self.closed or self.has_begun or self._spec is None:
            return []
        if self.dialect is None and self._choice is not None:
            return self._greet(self._choice.greeter)
        if self.dialect is None or self.dialect.greets:
            return []
        others = f"; others: {', '.join(self._choice.greeting_paths)}" if self._choice is not None else ""
        hint = f"a client of {self.dialect.name} speaks first{others}"
        return self._tell(WrongDialect("", "a first frame", "silence", hint))

    def _settle(self, message: Message | EncodedText) -> list[Effect]:
        if self.dialect is not None or self._choice is None:
            return []
        if isinstance(message, EncodedText):
            message = message.text(_GLANCE)
        dialect = self.dialect = self._telling.dialect = self._choice.settle(message, self._greeted, self._limits)
        self._make_reader()
        if self._greeted and not dialect.greets:
            hint = f"connect to /{dialect.name}, or send the first frame sooner"
            return self._tell(WrongDialect("", "a client that waits for a greeting", f"one of {dialect.name}", hint))
        return self._greet() if self._spec is not None else []

    def _make_reader(self) -> None:
        """Read with this dialect for this spec from now on, once both are known."""
        if self.dialect is not None and self._spec is not None:
            fitting = self._fit(self.dialect, self._spec) if self._fit is not None else None
            self._remarks.begin(fitting)
            self._reader = RequestReader(self.dialect, self._spec, self._limits, fitting)
            self._telling.speak(self.dialect, self._metadata)

    def _greet(self, dialect: Dialect | None = None) -> list[Effect]:
        greeter = dialect or self.dialect
        try:
            greeting = greeter.greeting(self._metadata) if greeter and greeter.greets and not self._greeted else None
        except PolicyFailed as error:
            return self.fail(error)
        except BaseException as error:  # metadata is a stranger's: what cannot be written is the policy's fault
            return self.fail(failed("the metadata cannot be written:", error))
        if greeting is None:
            return []
        self._greeted = True
        return [Send(greeting)]

    def _receive(self, message: Message | EncodedText | Overloaded, now: float) -> list[Effect]:
        if self.closed:
            return []
        # Without a reader those that wait are early, with one none is: they were taken when it was made.
        waiting = self._early if self._reader is None else self._pending
        if len(waiting) >= self._max_pending and not isinstance(message, Overloaded):
            message = Overloaded(f"{self.pending} requests of this session have no answer yet")
        if self._reader is None:
            return self._keep(message, now)
        try:
            return self._submit(self._reader, message, now)
        except PolicyserveError as error:
            return self._refuse(error, now)
        except BaseException as error:  # a stranger's bytes and spec: a bug in reading must cost this request only
            refused = PolicyFailed(f"reading the request failed: {type_name(error)}")
            refused.__cause__ = error
            return self._refuse(refused, now)

    def _keep(self, message: Message | EncodedText | Overloaded, now: float) -> list[Effect]:
        """Keep a message that came before the policy is ready."""
        refused, size = self._early.keep(message, now)
        self.received_bytes += size
        self._refusing = refused is not None and self._telling.closes(refused)
        return []

    def answer(self, ticket: int, outcome: Outcome, now: float) -> list[Effect]:
        """The outcome of a Submit; gives the answers that may leave now."""
        if self.closed:
            return []
        effects: list[Effect] = []
        for pending in self._pending:
            if pending.ticket == ticket:
                pending.outcome = outcome
                if pending.episode is not None:
                    assert self._spec is not None, "a policy has answered"
                    settled = pending.episode, pending, outcome, self._spec, now
                    effects = self._episodes.settle(*settled, may_ask=not self._draining)
                break
        return effects + self._flush(now) if effects else self._flush(now)

    def fail(self, error: PolicyserveError) -> list[Effect]:
        """End the conversation for a reason that is no request's: the policy could not be loaded, say."""
        if self.closed:
            return []
        effects = self._tell(error)
        return effects if self.closed else [*effects, self._close(1011, "")]

    def drain(self, error: PolicyserveError | None = None) -> list[Effect]:
        """Answer what was accepted, then close: as `error` tells; None: with 1001, since the server stops."""
        if self.closed or self._draining:
            return []
        self._draining = True
        if error is not None:
            self._parting = (close_code_of(error), close_reason(error))
        self._early.clear()
        return self._close_if_drained()

    def leave(self, code: int, reason: str) -> list[Effect]:
        """Close now, whatever has no answer yet."""
        return [] if self.closed else [self._close(code, reason)]

    def _submit(self, reader: RequestReader, message: Message | EncodedText | Overloaded, now: float) -> list[Effect]:
        if not isinstance(message, memoryview):
            message = self._decoded(message)
        if self._telling.converses is not None:
            return self._converse(self._telling.converses, reader, message, now)
        valid = reader.read(message)
        if self._serve_steps:
            return self._ask(Request(valid.observation), valid, len(message), now)
        observation, batch_size, unknown, footprint, is_encoded = valid
        submit = Submit(self._queue(now, len(message) + footprint).ticket, observation, batch_size, now, is_encoded)
        if self._remarks.are_due(unknown):
            return [*self._remarks.of(observation, unknown), submit]
        return [submit]

    def _converse(
        self, dialect: ConversingDialect, reader: RequestReader, message: Message, now: float
    ) -> list[Effect]:
        """Take a message of a dialect whose clients say more than observations."""
        heard = dialect.read_message(message, self._limits)
        if isinstance(heard, Unreadable):
            self._episodes.drop_rows()
            return self._refuse(heard.error, now, heard.context)
        if isinstance(heard, Control):
            names = self._episodes.names if heard.ends_all else [] if heard.ends is None else [heard.ends]
            effects = [effect for name in names for effect in self._episodes.end(name)]
            if heard.newest_only is not None:
                self._episodes.newest_only = heard.newest_only
            self._queue(now, len(message)).outcome = heard
            self._refusing = heard.closes
            return [*effects, *self._flush(now)]
        effects = self._episodes.end(heard.episode) if heard.begins else []
        try:
            return effects + self._ask(heard, reader.valid(heard), len(message), now)
        except PolicyserveError as error:
            self._episodes.drop_rows(heard.episode)
            return effects + self._refuse(error, now, heard.context)

    def _ask(self, request: Request, valid: ValidObservation, size: int, now: float) -> list[Effect]:
        """Answer an observation with the next row of its episode's chunk, or have the policy answer it."""
        effects: list[Effect] = []
        dialect = self._telling.converses
        one_action = dialect is not None and dialect.one_action
        episode = self._episodes.enter(request.episode, valid.batch_size, one_action, now, effects)
        pending = self._queue(now, size + valid.footprint)
        pending.context = request.context
        effects += self._remarks.of(valid.observation, valid.unknown)
        asked = self._episodes.ask(episode, pending, valid, now)
        if asked is not None:
            effects.append(asked)
        return effects if pending.outcome is None else effects + self._flush(now)

    def _decoded(self, message: Message | EncodedText | Overloaded) -> Message:
        if isinstance(message, Overloaded):
            raise message
        if not isinstance(message, EncodedText):
            return message
        most = self._limits.max_text
        if len(message) > most * _MOST_PER_LETTER:
            expected = f"a text message of at most {most} characters (--max-text)"
            raise WireError("", expected, f"{len(message)} bytes")
        return message.text()

    def _queue(self, now: float, size: int = 0) -> Pending:
        self._tickets += 1
        self.received_bytes += MESSAGE_OVERHEAD + size
        pending = Pending(self._tickets, now, MESSAGE_OVERHEAD + size)
        self._pending.append(pending)
        return pending

    def _refuse(self, error: PolicyserveError, now: float, context: Any = None) -> list[Effect]:
        error = of_policy(error, "reading the request raised")  # a spec's leaves may be a stranger's
        if not self._debug_wire and (error.blame == "client" or error.retryable):
            error.__traceback__ = error.__context__ = error.__cause__ = None  # their frames hold the message
        pending = self._queue(now)
        pending.context = context
        self.refused += 1
        self._refusing = self._telling.closes(error, context)
        return self.answer(pending.ticket, error, now)

    def _flush(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while not self.closed and self._pending and self._pending[0].outcome is not None:
            done = self._pending.popleft()
            effects += self._write(done, now)
        if self._draining:
            effects += self._close_if_drained()
        return effects

    def _write(self, done: Pending, now: float) -> list[Effect]:
        outcome = done.outcome
        if not isinstance(outcome, (Answered, Control)):
            return self._tell(outcome or NotReady("no outcome"), done.ticket, done.context)
        try:
            if isinstance(outcome, Control):
                message = self._telling.control(outcome)
                effects: list[Effect] = [] if message is None else [Send(message)]
                return [*effects, self._close(1000, "")] if outcome.closes else effects
            message, timing = self._telling.answer(outcome, done.arrived_at, now, done.context)
        except PolicyserveError as error:
            return self._tell(error, done.ticket, outcome.context if isinstance(outcome, Control) else done.context)
        return [Send(message, done.ticket, outcome.chunk, timing)]

    def _tell(self, error: PolicyserveError, ticket: int | None = None, context: Any = None) -> list[Effect]:
        error = of_policy(error, "the policy raised")  # an engine or a dialect may be another package's
        effects: list[Effect] = [Failed(error, ticket)]
        told = self._telling.refusal(error, context)
        if told.message is not None:
            effects.append(Send(told.message))
        if told.close_code is not None:
            effects.append(self._close(told.close_code, told.close_reason))
        return effects

    def _close_if_drained(self) -> list[Effect]:
        if self.closed or self._pending:
            return []
        return [self._close(*self._parting)]

    def _close(self, code: int, reason: str) -> Close:
        self.closed = True
        self._pending.clear()
        self._early.clear()
        return Close(code, reason)


def _size_of(outcome: Outcome | Control | None) -> int:
    """Bytes of an outcome that waits; what else it holds is the policy's own."""
    return int(getattr(outcome.chunk.actions, "nbytes", 0)) if isinstance(outcome, Answered) else 0
