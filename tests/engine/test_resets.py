"""A policy with one memory is told of new sessions, while that is right."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import PolicyFailed
from policyserve.core.policy import PerSessionPolicy, as_policy
from policyserve.engine.answering import Answering, Task


class Counting:
    """Answers how many calls there were since reset()."""

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, observation: Any) -> Any:
        self.calls += 1
        return np.full(1, self.calls)

    def reset(self) -> None:
        self.calls = 0


def call(answering: Answering, session: str) -> float:
    (outcome,) = answering.answer([Task(session, {})])
    return value(outcome)


def value(outcome: Outcome) -> float:
    assert isinstance(outcome, Answered), outcome
    return float(outcome.chunk.actions[0])


def test_a_session_that_begins_alone_finds_a_fresh_memory() -> None:
    answering = Answering(as_policy(Counting()))
    assert [call(answering, "a") for _ in range(3)] == [1, 2, 3]
    answering.forget("a")
    assert [call(answering, "b") for _ in range(2)] == [1, 2]


def test_a_second_session_is_warned_of_once_and_costs_the_first_nothing(caplog: pytest.LogCaptureFixture) -> None:
    answering = Answering(as_policy(Counting()))
    with caplog.at_level(logging.WARNING):
        assert [call(answering, session) for session in "aabc"] == [1, 2, 3, 4]
    (record,) = caplog.records
    told = record.getMessage()
    assert "Counting has one memory, and 2 sessions share it" in told
    assert "PolicyServer(factory=make_policy)" in told
    assert "ActionChunk.state" in told


def test_the_next_session_after_all_have_left_finds_a_fresh_memory() -> None:
    answering = Answering(as_policy(Counting()))
    for session in "ab":
        call(answering, session)
    answering.forget("a")
    assert call(answering, "c") == 3  # b is still there
    answering.forget("b")
    answering.forget("c")
    assert call(answering, "d") == 1


def test_an_inline_call_begins_a_session_as_well() -> None:
    answering = Answering(as_policy(Counting()))
    assert [value(answering.answer_one(Task("a", {}))) for _ in range(2)] == [1, 2]
    answering.forget("a")
    assert value(answering.answer_one(Task("b", {}))) == 1


@pytest.mark.parametrize("error", [RuntimeError("no arm"), SystemExit(3)])
def test_a_reset_that_fails_fails_the_request_and_is_tried_again(error: BaseException) -> None:
    class Stubborn(Counting):
        tries = 0

        def reset(self) -> None:
            self.tries += 1
            if self.tries == 1:
                raise error
            super().reset()

    answering = Answering(as_policy(Stubborn()))
    (outcome,) = answering.answer([Task("a", {})])
    assert isinstance(outcome, PolicyFailed)
    assert f"Stubborn.reset() raised {type(error).__name__}" in str(outcome)
    assert call(answering, "a") == 1


def test_objects_of_a_factory_are_each_sessions_own_and_go_with_it() -> None:
    answering = Answering(PerSessionPolicy(Counting))
    assert [call(answering, session) for session in "aabba"] == [1, 2, 1, 2, 3]
    answering.forget("a")
    assert [call(answering, session) for session in "ab"] == [1, 3]


def test_objects_of_a_factory_are_bounded_and_room_is_made_by_who_leaves() -> None:
    answering = Answering(PerSessionPolicy(Counting, max_sessions=2))
    assert [call(answering, session) for session in "ab"] == [1, 1]
    (refused,) = answering.answer([Task("c", {})])
    assert not isinstance(refused, Answered)
    assert (refused.code, refused.retryable) == ("overloaded", True)
    answering.forget("a")
    assert call(answering, "c") == 1
