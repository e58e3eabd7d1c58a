"""A conversation needs no socket: messages in, and a list as its sink."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pytest

from policyserve.client.sync import Client
from policyserve.core.effects import Answered
from policyserve.core.errors import NotReady, Overloaded, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.messages import Message
from policyserve.core.observer import Observer, Observers
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import Auto, by_name
from policyserve.engine.answering import OnStage, Task
from policyserve.engine.engine import Engine, OnOutcome
from policyserve.server.config import ServerConfig
from policyserve.server.conversation import Conversation
from policyserve.server.server import Server
from tests.server.live import running

SPEC = PolicySpec("doubling", {"obs": ArraySpec((2,))}, None)
VIBE_RL, OPENPI = by_name("vibe_rl"), by_name("openpi")


class HandEngine:
    """An engine whose requests the test answers; `reflex` answers each at once, within submit()."""

    stage = ""
    is_working = False

    def __init__(self, reflex: Callable[[Task], Any] | None = None) -> None:
        self.tasks: list[tuple[Task, OnOutcome]] = []
        self.forgotten: list[Hashable] = []
        self.closed = False
        self._reflex = reflex

    @property
    def load(self) -> int:
        return len(self.tasks)

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        on_stage("asking the cluster")
        return SPEC

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        if self._reflex is None:
            self.tasks.append((task, on_outcome))
        else:
            on_outcome(Answered(ActionChunk(self._reflex(task)), arrived_at, time.monotonic()))

    def forget(self, session: Hashable) -> None:
        self.forgotten.append(session)

    async def drained(self) -> None: ...

    async def close(self, timeout_s: float) -> None:
        self.closed = True

    def answer(self, actions: Any) -> None:
        _, on_outcome = self.tasks.pop(0)
        on_outcome(Answered(ActionChunk(np.asarray(actions)), 1.0, 2.0))


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.closes: list[tuple[int, str]] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def close(self, code: int, reason: str) -> None:
        self.closes.append((code, reason))


class Facts(Observer):
    """Keeps the names of what happened."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def on_request(self, session: int, ticket: int, observation: Any, arrived_at: float) -> None:
        self.told.append(("request", session, ticket, observation["obs"].tolist(), arrived_at))

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Any) -> None:
        self.told.append(("answer", session, ticket, chunk.actions.tolist(), timing.total_ms > 0))

    def on_refusal(self, session: int, ticket: int | None, error: Exception) -> None:
        self.told.append(("refusal", session, ticket, type(error)))


class Wire(Observer):
    """Keeps the messages that came and went, and the dialect."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def on_dialect(self, session: int, dialect: str) -> None:
        self.told.append((session, dialect))

    def on_message(self, session: int, message: Any, arrived_at: float) -> None:
        self.told.append((session, bytes(message), arrived_at))

    def on_sent(self, session: int, message: Message) -> None:
        self.told.append((session, message))


class Bench:
    def __init__(self, dialect: str | None = "vibe_rl", engine: HandEngine | None = None) -> None:
        self.engine, self.sink, self.facts = engine or HandEngine(), Kept(), Facts()
        self.lines: list[str] = []
        self.kinds: list[str] = []
        observers = Observers(lambda _observer, error: pytest.fail(str(error)))
        observers.add(self.facts)
        self.observers = observers
        session = Session(by_name(dialect) if dialect else None, choice=Auto(), max_pending=4)
        self.conversation = Conversation(3, session, self.sink, self.engine, observers, self._note)

    def _note(
        self, level: int, kind: str, text: str, *args: object, event: Event, cause: BaseException | None = None
    ) -> None:
        self.lines.append(f"{logging.getLevelName(level)} {text % args}")
        self.kinds.append(kind)

    def ask(self, *numbers: float, now: float = 0.5) -> None:
        message = VIBE_RL.write_request({"obs": np.array(numbers, np.float32)})
        assert isinstance(message, bytes)
        self.conversation.receive(memoryview(message), now)


def test_a_request_goes_to_the_engine_and_its_answer_to_the_sink_and_observers_are_told() -> None:
    bench = Bench()
    bench.conversation.serve(SPEC, {})
    bench.ask(1.0, 2.0)
    ((task, _),) = bench.engine.tasks
    assert (task.session, task.observation["obs"].tolist()) == (3, [1.0, 2.0])
    bench.engine.answer([7.0])
    (message,) = bench.sink.messages
    assert VIBE_RL.read_reply(message).actions.tolist() == [7.0]
    assert bench.facts.told == [("request", 3, 1, [1.0, 2.0], 0.5), ("answer", 3, 1, [7.0], True)]


def test_an_engine_may_answer_within_submit() -> None:
    bench = Bench(engine=HandEngine(lambda task: task.observation["obs"] * 2))
    bench.conversation.serve(SPEC, {})
    bench.ask(1.0, 2.0)
    bench.ask(3.0, 4.0)
    assert [VIBE_RL.read_reply(one).actions.tolist() for one in bench.sink.messages] == [[2.0, 4.0], [6.0, 8.0]]


def test_what_the_engine_refuses_is_told_and_logged() -> None:
    class Full(HandEngine):
        def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
            raise Overloaded("100 requests wait")

    bench = Bench(engine=Full())
    bench.conversation.serve(SPEC, {})
    bench.ask(1.0, 2.0)
    assert bench.sink.closes == [(1013, "100 requests wait [overloaded]")]
    assert [fact[0] for fact in bench.facts.told] == ["request", "refusal"]
    assert bench.facts.told[1] == ("refusal", 3, 1, Overloaded)
    assert bench.lines == ["WARNING session 3: overloaded: 100 requests wait"]


def test_a_refusal_before_the_policy_has_its_ticket_and_no_request() -> None:
    bench = Bench("openpi")
    bench.conversation.serve(SPEC, {})
    message = OPENPI.write_request({"obs": np.zeros(3, np.float32)})
    assert isinstance(message, bytes)
    bench.conversation.receive(memoryview(message), 0.0)
    ((kind, _, ticket, _),) = bench.facts.told
    assert (kind, ticket) == ("refusal", 1)
    assert bench.sink.closes == []


def test_a_policy_that_will_never_be_there_ends_it() -> None:
    bench = Bench("openpi")
    bench.conversation.fail(NotReady("not served: no such file"))
    assert bench.sink.closes == [(1011, "")]
    assert bench.facts.told == [("refusal", 3, None, NotReady)]


def test_a_dialect_that_the_first_message_tells_is_logged_once() -> None:
    bench = Bench(None)
    bench.conversation.serve(SPEC, {})
    assert bench.conversation.session.dialect is None
    bench.ask(1.0, 2.0)
    bench.ask(1.0, 2.0)
    assert bench.conversation.session.dialect is VIBE_RL
    assert bench.lines == ["INFO session 3 speaks vibe_rl"]


def test_an_observer_is_told_of_each_message_that_comes_and_goes_and_of_the_dialect() -> None:
    bench, wire = Bench(None), Wire()
    bench.observers.add(wire)
    bench.conversation.serve(SPEC, {})
    message = VIBE_RL.write_request({"obs": np.array([1.0, 2.0], np.float32)})
    bench.conversation.receive(message, 0.5)
    bench.engine.answer([7.0])
    bench.conversation.receive(b"\xc1", 0.75)
    (answer,) = bench.sink.messages  # a refusal closes
    assert wire.told == [(3, message, 0.5), (3, "vibe_rl"), (3, answer), (3, b"\xc1", 0.75)]


def test_after_its_connection_is_lost_nothing_is_sent() -> None:
    bench = Bench()
    bench.conversation.serve(SPEC, {})
    bench.ask(1.0, 2.0)
    bench.conversation.lose()
    bench.engine.answer([7.0])
    assert (bench.sink.messages, bench.sink.closes) == ([], [])


def test_a_drained_conversation_answers_what_it_has_and_closes() -> None:
    bench = Bench()
    bench.conversation.serve(SPEC, {})
    bench.ask(1.0, 2.0)
    bench.conversation.drain()
    assert bench.sink.closes == []
    bench.engine.answer([7.0])
    assert len(bench.sink.messages) == 1
    assert [code for code, _ in bench.sink.closes] == [1001]


def test_a_server_takes_an_engine_in_place_of_a_policy() -> None:
    engine = HandEngine(lambda task: task.observation["obs"] * 2)
    assert isinstance(engine, Engine)
    with running(Server(engine, ServerConfig(host="127.0.0.1", port=0))) as live:
        live.ready()
        with Client(live.url(), dialect="vibe_rl") as client:
            assert client.infer({"obs": np.ones(2, np.float32)}).actions.tolist() == [2.0, 2.0]
        live.until(lambda server: bool(engine.forgotten))
    assert engine.closed


def test_it_needs_no_event_loop() -> None:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    test_a_request_goes_to_the_engine_and_its_answer_to_the_sink_and_observers_are_told()


def test_a_client_whose_answer_cannot_be_sent_is_told_so_and_not_left_waiting() -> None:
    class Refusing(Kept):
        def send(self, message: Message) -> None:
            raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")

    bench = Bench()
    bench.sink = Refusing()
    bench.conversation._sink = bench.sink  # pyright: ignore[reportPrivateUsage]
    bench.conversation.serve(SPEC, {})
    bench.ask(1.0, 2.0)
    bench.engine.answer([7.0])
    assert bench.sink.closes == [(1011, "an answer could not be delivered")]
    assert bench.lines == ["ERROR session 3: an outcome was not delivered"]
    bench.ask(1.0, 2.0)
    assert bench.engine.tasks == []


def test_errors_of_a_policys_own_class_share_their_lines_whatever_their_codes() -> None:
    for code in ("one", "another"):
        bench = Bench()
        bench.conversation.serve(SPEC, {})
        error = PolicyserveError("no")
        error.code = code
        bench.ask(1.0, 2.0)
        _, on_outcome = bench.engine.tasks.pop()
        on_outcome(error)
        assert bench.kinds == ["other"]
        assert bench.lines == [f"ERROR session 3: {code}: no"]
