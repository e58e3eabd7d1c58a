"""What happens in a server, told to whoever observes it: counters, metrics, a page, recordings. Pure.

The conversations and the scheduler tell each fact once, when it happens, in the event loop's thread. Telling costs one
attribute look-up and an empty loop where nobody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import EncodedText, Message, Observation, Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec


class SessionFacts(NamedTuple):
    """Who opened a session. peer: address and port, "local" on a Unix socket. dialect: "auto" until it is known.

    key: the name of its API key, empty without one. policy: the name of the one that answers it, empty where a server
    has one alone, without a name.
    """

    number: int
    peer: str
    dialect: str
    key: str = ""
    policy: str = ""


class Observer:
    """Is told what happens; a subclass overrides what it wants to know, and nothing else costs anything.

    Every method is called in the event loop's thread and must return at once: disk, network and pictures belong in a
    thread of the observer's own. What it raises is logged once, and it is told nothing more.
    Sessions are named by their number. A ticket numbers a session's requests from 1; a request that was refused before
    the policy saw it has one, too. Observations and chunks are the policy's own: copy what is kept, change nothing.
    """

    # Whether it is told of batches that run in the event loop, too: those of policies that take microseconds.
    hears_inline_batches = True

    def on_policy_ready(self, spec: PolicySpec) -> None:
        """The policy that answers from now on; told again when another one takes its place."""

    def on_session_opened(self, session: SessionFacts) -> None:
        """A peer's handshake was accepted."""

    def on_session_closed(self, session: int) -> None:
        """Its connection is gone, or is about to go."""

    def on_dialect(self, session: int, dialect: str) -> None:
        """A session whose dialect was "auto" is known to speak this one."""

    def on_message(self, session: int, message: Message | EncodedText, arrived_at: float) -> None:
        """A whole message came, undecoded, good or not. arrived_at: time.monotonic.

        A view is of the memory that the policy reads: whoever keeps it may see what the policy changes there.
        """

    def on_sent(self, session: int, message: Message) -> None:
        """A whole message is handed to the connection: a greeting, an answer or an error."""

    def on_request(self, session: int, ticket: int, observation: Observation | Any, arrived_at: float) -> None:
        """A good observation is handed to the policy. arrived_at: when its message was whole (time.monotonic)."""

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Timing) -> None:
        """A request's actions were sent."""

    def on_refusal(self, session: int, ticket: int | None, error: PolicyserveError) -> None:
        """A request was refused or failed, and its peer was told. ticket: None where it concerns the session."""

    def on_batch_started(self, sessions: Sequence[Hashable], started_at: float) -> None:
        """The policy was given a batch, one request for each of these sessions (time.monotonic)."""

    def on_batch_ended(self, size: int, seconds: float) -> None:
        """The policy has answered a batch of `size` requests after so many seconds."""

    def on_policy_replaced(self, name: str, reason: str) -> None:
        """A policy that broke or hung is being replaced. name: which replica, for people."""

    def on_stage(self, stage: str) -> None:
        """What loading is at; empty once the policy answers."""


class Observers:
    """Several observers as one, which costs nothing for what none of them overrides.

    Each fact has a tuple of those who listen, which the places that tell it walk through:
    `for tell in observers.answer: tell(session, ticket, chunk, timing)`.
    on_failure: told of an observer that raised, which is dropped then. above: whose observers are told, too; those that
    are added here are told of what happens here alone.
    """

    def __init__(self, on_failure: Callable[[Observer, BaseException], None], above: Observers | None = None) -> None:
        self._on_failure = on_failure
        self._above = above
        self._below: list[Observers] = []
        self._observers: list[Observer] = []
        self._trusted: list[Observer] = []
        if above is not None:
            above._below.append(self)
        self._sort()

    def below(self) -> Observers:
        """Observers of a part of what happens, one policy of several; these are told of that part, too."""
        return Observers(self._on_failure, self)

    def add(self, observer: Observer, *, is_trusted: bool = False) -> None:
        """Tell it what happens from now on. is_trusted: it never raises, and is told without the cost of a guard."""
        self._observers.append(observer)
        if is_trusted:
            self._trusted.append(observer)
        self._sort()

    def remove(self, observer: Observer) -> None:
        """Tell it nothing more; one that is not there is no error."""
        self._observers = [one for one in self._observers if one is not observer]
        self._sort()

    def _sort(self) -> None:
        self.policy_ready = self._listening("policy_ready")
        self.session_opened = self._listening("session_opened")
        self.session_closed = self._listening("session_closed")
        self.dialect = self._listening("dialect")
        self.message = self._listening("message")
        self.sent = self._listening("sent")
        self.request = self._listening("request")
        self.answer = self._listening("answer")
        self.refusal = self._listening("refusal")
        self.batch_started = self._listening("batch_started")
        self.batch_ended = self._listening("batch_ended")
        self.inline_batch_started = self._listening("inline_batch_started")
        self.inline_batch_ended = self._listening("inline_batch_ended")
        self.policy_replaced = self._listening("policy_replaced")
        self.stage = self._listening("stage")
        for one in self._below:
            one._sort()

    def _listening(self, fact: str) -> tuple[Callable[..., None], ...]:
        name = f"on_{fact.removeprefix('inline_')}"
        silent = getattr(Observer, name)
        asked = [one for one in self._observers if one.hears_inline_batches or not fact.startswith("inline_")]
        listening = [one for one in asked if getattr(type(one), name) is not silent]
        above: tuple[Callable[..., None], ...] = () if self._above is None else getattr(self._above, fact)
        own = tuple(
            getattr(one, name) if any(one is other for other in self._trusted) else self._guarded(one, name)
            for one in listening
        )
        return above + own

    def _guarded(self, observer: Observer, name: str) -> Callable[..., None]:
        method = getattr(observer, name)

        def tell(*facts: Any) -> None:
            try:
                method(*facts)
            except BaseException as error:  # a stranger's observer must not disturb what it observes
                self.remove(observer)
                self._on_failure(observer, error)

        return tell
