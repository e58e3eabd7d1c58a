"""A session's state changes where its outcome is told, and never otherwise: late, double and reordered outcomes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policyserve.engine.keeping import Keeping, NumberedKeeping

SESSIONS = st.integers(0, 2)
SOME = settings(max_examples=60, stateful_step_count=40, deadline=None)


class AnsweredInTurn(RuleBasedStateMachine):
    """A policy's thread and the event loop that is behind it: what the thread hears comes in the order of its saying.

    The thread has the batch that runs and one ahead. The loop refuses requests of both, and tells the answers of the
    others when it hears of their batch. Each state is the number of the request that it came of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keeping = Keeping()
        self.told: dict[int, int] = {}  # what each session knows: the number of its last answer
        self.given: dict[int, Any] = {}  # the state that each request was given
        self.numbers = 0
        self.batches: list[list[tuple[int, int]]] = []  # that the loop has handed over and not heard of
        self.said: list[Any] = []  # by the loop, and not heard by the thread
        self.refused: set[int] = set()

    @property
    def under_way(self) -> set[int]:
        return {session for batch in self.batches for session, _ in batch}

    @precondition(lambda self: len(self.batches) < 2)
    @rule(sessions=st.sets(SESSIONS, min_size=1))
    def hand_over(self, sessions: set[int]) -> None:
        batch = []
        for session in sorted(sessions - self.under_way):
            self.numbers += 1
            batch.append((session, self.numbers))
        if batch:
            self.batches.append(batch)
            self.said.append(("infer", batch, {session: self.told.get(session) for session, _ in batch}))

    @rule(stateless=st.booleans())
    def thread_works(self, stateless: bool) -> None:
        if not self.said:
            return
        kind, what, *more = self.said.pop(0)
        if kind == "infer":
            self.keeping.begin_batch()
            for session, _ in what:
                assert self.keeping.begin(session) == more[0][session]
            for session, number in what:
                self.keeping.keep(session, number)
        elif kind == "take back":
            self.keeping.take_back(what)
        else:
            self.keeping.forget(what)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        open_ones = [one for batch in self.batches for one in batch if one[1] not in self.refused]
        if open_ones:
            session, number = data.draw(st.sampled_from(open_ones))
            self.refused.add(number)
            self.said.append(("take back", session))

    @precondition(lambda self: self.batches and ("infer", self.batches[0]) not in [one[:2] for one in self.said])
    @rule()
    def loop_hears_of_a_batch(self) -> None:
        for session, number in self.batches.pop(0):
            if number not in self.refused:
                self.told[session] = number

    @rule(session=SESSIONS)
    def forget(self, session: int) -> None:
        if session not in self.under_way:
            self.told.pop(session, None)
            self.said.append(("forget", session))


class AnsweredAfar(RuleBasedStateMachine):
    """Answers come late, twice and in any order; each state is the number of the request that it came of."""

    def __init__(self) -> None:
        super().__init__()
        self.keeping = NumberedKeeping()
        self.told: dict[int, int] = {}
        self.asked: list[tuple[int, int]] = []  # every request there ever was: any may be answered again
        self.open: dict[int, int] = {}

    @rule(session=SESSIONS)
    def ask(self, session: int) -> None:
        number, state = self.keeping.begin(session)
        assert state == self.told.get(session)
        self.asked.append((session, number))
        self.open[session] = number

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def an_answer_comes(self, data: st.DataObject) -> None:
        session, number = data.draw(st.sampled_from(self.asked))
        is_wanted = self.open.get(session) == number
        assert self.keeping.is_open(session, number) is is_wanted
        assert self.keeping.keep(session, number, number) is is_wanted
        if is_wanted:
            self.told[session] = self.open.pop(session)

    @rule(session=SESSIONS)
    def refuse(self, session: int) -> None:
        self.keeping.take_back(session)
        self.open.pop(session, None)

    @rule(session=SESSIONS)
    def forget(self, session: int) -> None:
        self.keeping.forget(session)
        self.told.pop(session, None)
        self.open.pop(session, None)

    @invariant()
    def only_what_was_told_is_remembered(self) -> None:
        for session in range(3):
            before = self.open.get(session)
            number, state = self.keeping.begin(session)
            assert state == self.told.get(session)
            if before is None:
                self.keeping.take_back(session)
            else:  # that request, which is still open, is numbered anew
                self.asked.append((session, number))
                self.open[session] = number


TestAnsweredInTurn = AnsweredInTurn.TestCase
TestAnsweredInTurn.settings = SOME
TestAnsweredAfar = AnsweredAfar.TestCase
TestAnsweredAfar.settings = SOME


def test_a_refused_request_leaves_the_state_that_its_session_was_told() -> None:
    keeping = Keeping()
    for state in ("first", "second"):
        keeping.begin_batch()
        keeping.begin(1)
        keeping.keep(1, state)
    keeping.take_back(1)
    keeping.take_back(1)
    assert keeping.begin(1) == "first"


def test_a_request_that_failed_is_not_undone_by_what_the_one_before_left() -> None:
    keeping = Keeping()
    keeping.begin_batch()
    keeping.begin(1)
    keeping.keep(1, "first")
    keeping.begin_batch()
    assert keeping.begin(1) == "first"  # and its request fails
    keeping.take_back(1)
    assert keeping.begin(1) == "first"


def test_a_first_request_that_was_refused_leaves_no_state() -> None:
    keeping = Keeping()
    keeping.begin(1)
    keeping.keep(1, "first")
    keeping.take_back(1)
    assert keeping.begin(1) is None


@given(count=st.integers(0, 20))
def test_states_of_before_are_let_go_of_after_two_batches(count: int) -> None:
    keeping = Keeping()
    for session in range(count):
        keeping.begin_batch()
        keeping.begin(session)
        keeping.keep(session, "old")
        keeping.begin(session)
        keeping.keep(session, "new")
    held = [*vars(keeping)["_before"], *vars(keeping)["_older"]]
    assert len(held) <= 2
