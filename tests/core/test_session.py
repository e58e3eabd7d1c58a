"""One conversation: answers in order, nothing after a close, never an exception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.dialect import Dialect, ErrorReply, close_code_of, close_reason, read_close_reason
from policyserve.core.effects import Answered, BinaryPictures, Close, Dropped, Effect, Failed, Outcome, Send, Submit
from policyserve.core.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    PolicyFailed,
    PolicyserveError,
    WireError,
)
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import Auto
from policyserve.dialects.openpi import OpenPI
from policyserve.dialects.server_only import ServerOnly
from policyserve.dialects.vibe_rl import VibeRL
from tests.engine.awkward import RaisingMap
from tests.strange import STRANGE, strange

OPEN = PolicySpec("echo", None, None)


class Letters(ServerOnly):
    """A dialect for tests: messages are texts. "bad…" is refused, "bug" is a bug of ours; errors are messages unless
    `closes`, then they close."""

    name = "letters"

    def __init__(self, *, greets: bool = False, closes: bool = False) -> None:
        self.greets = greets
        self._closes = closes

    def greeting(self, metadata: Mapping[str, Any]) -> Message | None:
        return "hello" if self.greets else None

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        if message == "bug":
            raise ZeroDivisionError
        if not isinstance(message, str) or message.startswith("bad"):
            raise WireError("", "a letter", repr(message))
        return Request({"obs": message}, bare=True)

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
        if chunk.extras:
            raise TypeError("cannot write extras")
        return f"re {chunk.actions}"

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        if self._closes:
            return ErrorReply(None, close_code_of(error), close_reason(error))
        return ErrorReply(f"error {error.code}")


def session_of(*, max_pending: int = 8, is_ready: bool = True, **how: Any) -> Session:
    session = Session(Letters(**how), max_pending=max_pending)
    if is_ready:
        session.serve(OPEN, {})
    return session


def answered(value: Any, *, started_at: float = 0.0, ended_at: float = 0.0, **rest: Any) -> Answered:
    return Answered(ActionChunk(value, **rest), started_at, ended_at)


def submits(effects: Sequence[Effect]) -> list[Submit]:
    return [effect for effect in effects if isinstance(effect, Submit)]


def told(effects: Sequence[Effect]) -> list[Any]:
    """What the peer gets to see."""
    seen: list[Any] = []
    for effect in effects:
        if isinstance(effect, Send):
            seen.append(effect.message)
        elif isinstance(effect, Close):
            seen.append(effect.code)
    return seen


def submit(session: Session, message: Message = "a", now: float = 0.0) -> int:
    (effect,) = submits(session.receive(message, now))
    return effect.ticket


def test_a_policy_is_exchanged_under_a_living_session() -> None:
    """A message that was read by its layout under the old spec is validated by the new one."""
    dialect = VibeRL()

    def spec(name: str, size: int) -> PolicySpec:
        return PolicySpec(name, {"obs": ArraySpec((size,))}, ArraySpec((1,)))

    message = memoryview(bytearray(dialect.write_request({"obs": np.arange(4, dtype=np.float32)})))
    session = Session(dialect, max_pending=16)
    session.serve(spec("first", 4), {})
    for _ in range(4):
        assert submits(session.receive(message, 0.0))
    session.serve(PolicySpec("open", None, None), {})
    (bare,) = submits(session.receive(message, 0.0))
    assert isinstance(bare.observation, np.ndarray), "no spec, so the policy gets the array alone"
    for _ in range(4):
        submits(session.receive(message, 0.0))
    session.serve(spec("last", 3), {})
    effects = session.receive(message, 0.0)
    assert not submits(effects)
    assert session.pending == 10, "the refusal waits for its turn"


def test_who_was_greeted_is_not_greeted_again_for_another_policy() -> None:
    session = Session(Letters(greets=True), max_pending=8)
    assert told(session.serve(OPEN, {})) == ["hello"]
    assert session.serve(OPEN, {}) == []


def test_a_session_whose_dialect_is_found_out_reads_with_what_serve_gave_last() -> None:
    session = Session(None, choice=Auto(), max_pending=8)
    session.serve(PolicySpec("first", {"other": ArraySpec((4,))}, None), {})
    session.serve(PolicySpec("second", {"obs": ArraySpec((4,))}, None), {})
    assert submits(session.receive(VibeRL().write_request({"obs": np.zeros(4)}), 0.0))


def picture(value: int) -> np.ndarray[Any, Any]:
    return np.full((4, 6, 3), value, np.uint8)


def remarks(session: Session, observation: Mapping[str, Any]) -> list[BinaryPictures]:
    effects = session.receive(OpenPI().write_request(observation), 0.0)
    assert submits(effects), "it is a remark and no refusal"
    return [effect for effect in effects if isinstance(effect, BinaryPictures)]


def open_session() -> Session:
    session = Session(OpenPI(), max_pending=64)
    session.serve(OPEN, {})
    return session


def test_a_picture_of_zeros_and_ones_is_told_once_per_session() -> None:
    session = open_session()
    dim = {"images": {"wrist": picture(1), "front": picture(200)}, "state": np.ones(3)}
    assert remarks(session, dim) == [BinaryPictures(("images/wrist",))]
    assert remarks(session, dim) == []


def test_only_a_sessions_first_pictures_are_looked_at() -> None:
    session = open_session()
    for _ in range(3):
        assert remarks(session, {"view": picture(0)}) == []
    assert remarks(session, {"view": picture(1)}) == []


class Broken(Letters):
    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        raise ZeroDivisionError


def test_a_dialect_that_cannot_tell_errors_closes_with_the_reason() -> None:
    session = Session(Broken(), max_pending=8)
    session.serve(OPEN, {})
    assert [(effect.code, effect.reason) for effect in session.receive("bad", 0.0) if isinstance(effect, Close)] == [
        (1008, "expected a letter, got 'bad' [bad_frame]")
    ]


# Rule 1: order


def test_a_request_is_submitted_and_its_answer_sent() -> None:
    session = session_of()
    (effect,) = session.receive("a", 1.0)
    assert effect == Submit(ticket=1, observation="a", batch_size=None, arrived_at=1.0)
    (send,) = session.answer(1, answered("A"), 1.5)
    assert isinstance(send, Send)
    assert (send.message, send.ticket, send.chunk) == ("re A", 1, answered("A").chunk)
    assert send.timing is not None
    assert send.timing.total_ms == 500.0
    assert session.pending == 0


def test_answers_leave_in_the_order_of_their_requests() -> None:
    session = session_of()
    first, second, third = (submit(session, letter) for letter in "abc")
    assert session.answer(third, answered("C"), 0.0) == []
    assert session.answer(second, answered("B"), 0.0) == []
    assert told(session.answer(first, answered("A"), 0.0)) == ["re A", "re B", "re C"]


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    session = session_of()
    first = submit(session)
    assert session.receive("bad", 0.0) == []
    assert told(session.answer(first, answered("A"), 0.0)) == ["re A", "error bad_frame"]
    assert not session.closed


def test_a_refusal_that_closes_waits_too_and_what_follows_is_not_read() -> None:
    session = session_of(closes=True)
    first = submit(session)
    assert session.receive("bad", 0.0) == []
    assert session.receive("c", 0.0) == []
    assert told(session.answer(first, answered("A"), 0.0)) == ["re A", 1008]
    assert session.closed


def test_an_error_outcome_is_told_in_its_turn() -> None:
    session = session_of()
    first, second = submit(session), submit(session)
    assert session.answer(second, DeadlineExceeded("late"), 0.0) == []
    effects = session.answer(first, answered("A"), 0.0)
    assert told(effects) == ["re A", "error deadline_exceeded"]
    assert [effect.error.code for effect in effects if isinstance(effect, Failed)] == ["deadline_exceeded"]


def test_too_many_requests_are_refused_in_their_turn() -> None:
    session = session_of(max_pending=2)
    first, second = submit(session), submit(session)
    assert session.receive("c", 0.0) == []
    session.answer(second, answered("B"), 0.0)
    assert told(session.answer(first, answered("A"), 0.0)) == ["re A", "re B", "error overloaded"]
    assert submits(session.receive("d", 0.0))


def test_an_unknown_ticket_and_a_second_answer_change_nothing() -> None:
    session = session_of()
    assert session.answer(99, answered("?"), 0.0) == []
    ticket = submit(session)
    session.answer(ticket, answered("A"), 0.0)
    assert session.answer(ticket, answered("again"), 0.0) == []


def test_timing_counts_from_arrival() -> None:
    seen: list[Timing] = []

    class Watching(Letters):
        def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
            seen.append(timing)
            return "re"

    session = Session(Watching(), max_pending=2)
    session.serve(OPEN, {})
    for arrived_at in (10.0, 20.0):
        outcome = answered("A", started_at=arrived_at + 1, ended_at=arrived_at + 3)
        session.answer(submit(session, now=arrived_at), outcome, arrived_at + 4)
    assert seen == [Timing(1e3, 2e3, 4e3, None), Timing(1e3, 2e3, 4e3, 4e3)]


# Rule 2: nothing after a close


@pytest.mark.parametrize("end", ["leave", "fail", "drain", "refusal"])
def test_nothing_follows_a_close(end: str) -> None:
    session = session_of(closes=True)
    if end == "leave":
        effects = session.leave(1001, "bye")
    elif end == "fail":
        effects = session.fail(NotReady("loading failed"))
    elif end == "drain":
        effects = session.drain()
    else:
        effects = session.receive("bad", 0.0)
    assert isinstance(effects[-1], Close)
    assert sum(isinstance(effect, Close) for effect in effects) == 1
    assert session.closed
    for later in (
        session.receive("a", 0.0),
        session.answer(1, answered("A"), 0.0),
        session.leave(1001, ""),
        session.fail(NotReady("")),
        session.drain(),
        session.serve(OPEN, {}),
    ):
        assert later == []


def test_answers_behind_a_close_are_dropped() -> None:
    session = session_of(closes=True)
    first, second = submit(session), submit(session)
    session.answer(second, answered("B"), 0.0)
    assert told(session.answer(first, PolicyFailed("it raised"), 0.0)) == [1011]
    assert session.pending == 0


def test_a_failure_of_the_whole_server_is_told_in_either_kind_of_dialect() -> None:
    assert told(session_of(is_ready=False, closes=True).fail(NotReady("not loaded"))) == [1013]
    assert told(session_of(is_ready=False).fail(NotReady("not loaded"))) == ["error not_ready", 1011]


# Rule 3: early messages


def test_early_frames_are_answered_once_the_policy_is_ready() -> None:
    session = session_of(is_ready=False, greets=True)
    assert session.receive("a", 1.0) == []
    assert session.receive("b", 2.0) == []
    assert session.pending == 2
    effects = session.serve(OPEN, {})
    assert told(effects) == ["hello"]
    assert [(one.observation, one.arrived_at) for one in submits(effects)] == [("a", 1.0), ("b", 2.0)]


@pytest.mark.parametrize("closes", [True, False])
def test_too_many_early_frames_are_refused_in_their_turn_and_after_the_greeting(closes: bool) -> None:
    session = session_of(is_ready=False, greets=True, closes=closes, max_pending=2)
    for letter in "abc":
        assert session.receive(letter, 0.0) == []
    effects = session.serve(OPEN, {})
    assert told(effects) == ["hello"]
    first, second = (one.ticket for one in submits(effects))
    assert told(session.answer(first, answered("A"), 0.0)) == ["re A"]
    refused = 1013 if closes else "error overloaded"
    assert told(session.answer(second, answered("B"), 0.0)) == ["re B", refused]


def test_a_bad_early_frame_is_refused_when_the_policy_is_ready() -> None:
    session = session_of(is_ready=False, closes=True)
    session.receive("bad", 0.0)
    session.receive("a", 0.0)
    effects = session.serve(OPEN, {})
    assert told(effects) == [1008]
    assert submits(effects) == []


# Draining


def test_a_draining_session_answers_what_it_took_and_takes_no_more() -> None:
    session = session_of()
    ticket = submit(session)
    assert session.drain() == []
    assert session.receive("b", 0.0) == []
    assert told(session.answer(ticket, answered("A"), 0.0)) == ["re A", 1001]


def test_an_idle_session_drains_at_once() -> None:
    assert told(session_of().drain()) == [1001]


def test_a_session_that_drains_for_another_reason_than_the_servers_end_is_told_it_when_it_is_answered() -> None:
    session = session_of()
    ticket = submit(session)
    assert session.drain(NotReady("another policy: connect again")) == []
    effects = session.answer(ticket, answered("A"), 0.0)
    assert told(effects[:1]) == ["re A"]
    assert effects[1:] == [Close(1013, "another policy: connect again [not_ready]")]
    assert read_close_reason(1013, "another policy: connect again [not_ready]")[1] == "not_ready"


def test_a_session_that_still_waits_for_the_policy_drains_at_once() -> None:
    session = session_of(is_ready=False)
    session.receive("a", 0.0)
    assert told(session.drain()) == [1001]


# What strangers do


def test_a_bug_in_reading_costs_that_request_only() -> None:
    session = session_of()
    effects = session.receive("bug", 0.0)
    assert told(effects) == ["error policy_failed"]
    assert isinstance(effects[0], Failed)
    assert isinstance(effects[0].error.__cause__, ZeroDivisionError)
    assert submits(session.receive("a", 0.0))


def test_an_answer_that_cannot_be_written_is_the_policys_failure() -> None:
    session = session_of()
    ticket = submit(session)
    effects = session.answer(ticket, answered("A", extras={"device": object()}), 0.0)
    assert told(effects) == ["error policy_failed"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("dialect", [OpenPI(), Letters()], ids=["openpi", "letters"])
def test_whatever_extras_raise_while_they_are_written_is_the_policys_failure(dialect: Dialect, name: str) -> None:
    session = Session(dialect, max_pending=8)
    session.serve(OPEN, {})
    message = "a" if isinstance(dialect, Letters) else dialect.write_request({"obs": np.zeros(1)})
    (effect,) = submits(session.receive(message, 0.0))
    effects = session.answer(effect.ticket, answered(np.zeros(1), extras=RaisingMap(name)), 0.0)
    failure, *_ = effects
    assert isinstance(failure, Failed)
    assert failure.ticket == effect.ticket
    assert failure.error.code == "policy_failed"
    assert str(failure.error).isprintable()
    assert any(isinstance(one, (Send, Close)) for one in effects)


def test_dropped_keys_are_told_once() -> None:
    spec = PolicySpec("p", {"obs": ArraySpec((1,))}, ArraySpec((1,)))
    session = Session(VibeRL(), max_pending=8)
    session.serve(spec, {})
    message = VibeRL().write_request({"obs": np.zeros(1), "junk": np.zeros(1)})
    assert [type(effect) for effect in session.receive(message, 0.0)] == [Dropped, Submit]
    assert [type(effect) for effect in session.receive(message, 0.0)] == [Submit]


def test_only_a_policy_without_a_spec_gets_a_bare_array() -> None:
    message = VibeRL().write_request({"obs": np.zeros(1, np.float32)})
    for spec in (OPEN, PolicySpec("p", {"obs": ArraySpec((1,))}, ArraySpec((1,)))):
        session = Session(VibeRL(), max_pending=8)
        session.serve(spec, {})
        (effect,) = submits(session.receive(message, 0.0))
        assert isinstance(effect.observation, np.ndarray) == (spec is OPEN)


# Anything in any order


FRAMES = st.sampled_from(["a", "b", "c", "bad", "bug", b"bytes", ""])
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.sampled_from("XYZ").map(answered),
    st.just(answered("A", extras={"cannot": "be written"})),
    st.sampled_from([PolicyFailed("it raised"), DeadlineExceeded("late"), Overloaded("full")]),
)
STEPS = st.one_of(
    st.tuples(st.just("receive"), FRAMES),
    st.tuples(st.just("receive"), FRAMES),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 9), OUTCOMES)),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 9), OUTCOMES)),
    st.tuples(st.just("serve"), st.none()),
    st.tuples(st.sampled_from(["drain", "leave", "fail"]), st.none()),
)


@given(st.lists(STEPS, max_size=40), st.booleans(), st.booleans(), st.integers(1, 5))
def test_in_any_order_of_events_it_never_raises_and_answers_in_order(
    steps: list[Any], closes: bool, greets: bool, max_pending: int
) -> None:
    session = session_of(is_ready=False, closes=closes, greets=greets, max_pending=max_pending)
    is_served = is_draining = False
    open_tickets: list[int] = []  # submitted, not answered
    effects: list[Effect] = []
    frames = 0
    expected: dict[int, str] = {}  # by ticket: what its answer must read
    for number, (step, argument) in enumerate(steps):
        if step == "receive":
            frames += not is_draining  # those that come later are not read
            new = session.receive(argument, float(number))
        elif step == "answer":
            if not open_tickets:
                continue
            index, outcome = argument
            ticket = open_tickets.pop(index % len(open_tickets))
            if isinstance(outcome, Answered) and not outcome.chunk.extras:
                outcome = answered(f"{outcome.chunk.actions}{ticket}")
                expected[ticket] = f"re {outcome.chunk.actions}"
            new = session.answer(ticket, outcome, float(number))
        elif step == "serve":
            is_served = True  # again: another policy
            new = session.serve(OPEN, {})
        elif step == "drain":
            is_draining = True
            new = session.drain()
        elif step == "leave":
            new = session.leave(1001, "")
        else:
            new = session.fail(NotReady("no"))
        open_tickets += [one.ticket for one in submits(new)]
        effects += new

    seen = told(effects)
    closes_at = [index for index, one in enumerate(seen) if isinstance(one, int)]
    assert len(closes_at) == session.closed
    assert not closes_at or closes_at[0] == len(seen) - 1, "nothing follows a close"
    replies = [one for one in seen if isinstance(one, str) and one.startswith("re ")]
    in_order = [expected[ticket] for ticket in sorted(expected)]
    assert replies == [one for one in in_order if one in replies], "answers leave in the order of their requests"
    assert len(set(replies)) == len(replies)
    assert len(seen) <= frames + 1 + greets + 1
    if greets and is_served and seen and seen[0] != "hello":
        assert isinstance(seen[0], int) or seen[0] == "error not_ready", "the greeting comes first"
    if not session.closed and is_served and not closes:  # what follows a refusal that closes is not read
        assert len([one for one in seen if one != "hello"]) + session.pending == frames, "every request has its answer"


class Speechless(Letters):
    def greeting(self, metadata: Mapping[str, Any]) -> Message | None:
        raise TypeError("a Robot cannot be sent")


def test_metadata_that_cannot_be_written_is_told_and_ends_the_session() -> None:
    session = Session(Speechless(greets=True), max_pending=2)
    effects = session.serve(OPEN, {"robot": object()})
    assert told(effects) == ["error policy_failed", 1011]


@pytest.mark.parametrize("name", STRANGE)
def test_whatever_metadata_raises_while_it_is_written_ends_the_session(name: str) -> None:
    session = Session(OpenPI(), max_pending=2)
    effects = session.serve(OPEN, RaisingMap(name))
    assert isinstance(effects[0], Failed)
    assert isinstance(effects[-1], Close)
    assert session.closed


@pytest.mark.parametrize("name", STRANGE)
def test_whatever_a_specs_own_leaf_raises_while_it_reads_fails_that_request(name: str) -> None:
    class Odd(ArraySpec):
        def read(self, value: Any, path: str) -> Any:
            strange(name)

    session = Session(Letters(), max_pending=2)
    session.serve(PolicySpec("odd", {"obs": Odd((1,))}, None), {})
    effects = session.receive("a", 0.0)
    assert [type(effect) for effect in effects] == [Failed, Send]
