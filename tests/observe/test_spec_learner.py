"""What a policy without a spec takes is learned once, and nothing that a stranger sends disturbs its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import PolicyFailed
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ArraySpec
from policyserve.core.spec_from_values import SeenPolicy
from policyserve.observe.spec_learner import SpecLearner

TIMING = Timing(1.0, 2.0, 3.0)
STATE = {"state": np.zeros(3)}


class Bench:
    def __init__(self, on_seen: Any = None) -> None:
        self.seen: list[SeenPolicy] = []
        self.learner = SpecLearner("mine", on_seen or self.seen.append)

    def ask(self, observation: Any, ticket: int = 1, session: int = 1) -> None:
        self.learner.on_request(session, ticket, observation, 0.0)

    def answer(self, actions: Any = (1.0, 2.0), ticket: int = 1, session: int = 1) -> None:
        self.learner.on_answer(session, ticket, ActionChunk(np.asarray(actions)), TIMING)


def test_the_first_answered_request_tells_and_no_later_one() -> None:
    bench = Bench()
    bench.ask(STATE)
    assert bench.seen == []
    bench.answer()
    bench.ask({"other": 1}, 2)
    bench.answer(3.0, 2)
    (seen,) = bench.seen
    assert (seen.name, seen.spec.action) == ("mine", ArraySpec((2,), "float64"))
    assert list(seen.spec.leaves) == ["state"]


def test_a_refused_request_teaches_nothing() -> None:
    bench = Bench()
    bench.ask({"wrong": 1})
    bench.learner.on_refusal(1, 1, PolicyFailed("no"))
    bench.answer()
    assert bench.seen == []
    bench.ask(STATE, 2)
    bench.answer(ticket=2)
    assert list(bench.seen[0].spec.leaves) == ["state"]


def test_an_answer_is_put_to_its_own_request_and_not_to_another_sessions() -> None:
    bench = Bench()
    bench.ask({"first": 1}, session=1)
    bench.ask({"second": 1}, session=2)
    bench.answer(session=2)
    assert list(bench.seen[0].spec.leaves) == ["second"]


def test_what_it_was_given_is_described_before_the_policy_can_change_it() -> None:
    bench = Bench()
    observation: dict[str, Any] = dict(STATE)
    bench.ask(observation)
    observation.clear()
    bench.answer()
    assert list(bench.seen[0].spec.leaves) == ["state"]


def test_an_empty_chunk_tells_nothing() -> None:
    bench = Bench()
    bench.ask(STATE)
    bench.answer(np.zeros((0, 7)))
    assert bench.seen == []


class Hostile(Mapping[str, Any]):
    """A map that raises."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("strange", [Hostile(), None, b"", {"a": Hostile()}, {str(n): n for n in range(99)}])
def test_a_strange_observation_is_passed_over_and_the_next_one_teaches(strange: Any) -> None:
    bench = Bench()
    bench.ask(strange)
    bench.answer()
    assert bench.seen == []
    bench.ask(STATE, 2)
    bench.answer(ticket=2)
    assert len(bench.seen) == 1


def test_it_gives_up_when_no_observation_can_be_described() -> None:
    bench = Bench()
    for ticket in range(8):
        bench.ask(None, ticket)
    bench.ask(STATE, 9)
    bench.answer(ticket=9)
    assert bench.seen == []


def test_a_listener_that_raises_disturbs_nobody() -> None:
    def fail(_seen: SeenPolicy) -> None:
        raise OSError("the disk is full")

    bench = Bench(fail)
    bench.ask(STATE)
    bench.answer()


def test_of_requests_that_never_end_a_few_are_kept_until_their_session_closes() -> None:
    bench = Bench()
    for ticket in range(100):
        bench.ask(STATE, ticket)
    bench.answer(ticket=16)  # the seventeenth: there was no room for it
    assert bench.seen == []
    bench.learner.on_session_closed(1)
    bench.answer(ticket=15)
    assert bench.seen == []
    bench.ask(STATE, 100, session=2)
    bench.answer(ticket=100, session=2)
    assert len(bench.seen) == 1
