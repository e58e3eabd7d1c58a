from __future__ import annotations

import numpy as np

from policyserve.core.dialect import TOLD
from policyserve.core.errors import BadObservation, Overloaded, PolicyserveError
from policyserve.core.messages import EncodedText, Timing
from policyserve.core.observer import SessionFacts
from policyserve.core.policy import ActionChunk
from policyserve.observe.tally import BROKE, HUNG, Asked, Tally

CHUNK = ActionChunk(np.zeros(1))


class Served:
    """What is served, which another policy may follow."""

    def __init__(self, name: str = "arm") -> None:
        self.name = name

    def __call__(self) -> str:
        return self.name


def answer(tally: Tally, session: int, infer_ms: float = 2.0) -> None:
    tally.on_answer(session, 1, CHUNK, Timing(1.0, infer_ms, 4.0))


def test_answers_are_counted_by_the_dialect_that_a_session_was_recognised_by() -> None:
    tally = Tally(Served())
    tally.on_session_opened(SessionFacts(1, "peer", "auto"))
    tally.on_session_opened(SessionFacts(2, "peer", "wall_x"))
    tally.on_dialect(1, "openpi")
    for session in (1, 1, 2):
        answer(tally, session)
    assert +tally.requests() == {Asked("arm", "openpi", "answered"): 2, Asked("arm", "wall_x", "answered"): 1}


def test_the_answers_of_a_session_stay_counted_when_it_closes() -> None:
    tally = Tally(Served())
    for session in (1, 2):
        tally.on_session_opened(SessionFacts(session, "peer", "openpi"))
        answer(tally, session)
        tally.on_session_closed(session)
    assert +tally.requests() == {Asked("arm", "openpi", "answered"): 2}


def test_whoever_has_a_session_has_every_outcome_before_the_first_request() -> None:
    tally = Tally(Served())
    tally.on_session_opened(SessionFacts(1, "peer", "openpi"))
    told = tally.requests()
    assert {told[Asked("arm", "openpi", outcome)] for outcome in ("answered", "overloaded", "bad_action")} == {0}
    assert len(told) == 1 + len(TOLD)


def test_a_session_that_asked_nothing_leaves_nothing() -> None:
    tally = Tally(Served())
    tally.on_session_opened(SessionFacts(1, "peer", "auto"))
    tally.on_session_closed(1)
    assert tally.requests() == {}


def test_refusals_are_counted_by_their_code() -> None:
    tally = Tally(Served())
    tally.on_session_opened(SessionFacts(1, "peer", "openpi"))
    for error in (Overloaded("full"), BadObservation("a", "b", "c"), Overloaded("full")):
        tally.on_refusal(1, 1, error)
    assert +tally.requests() == {
        Asked("arm", "openpi", "overloaded"): 2,
        Asked("arm", "openpi", "bad_observation"): 1,
    }


def test_codes_that_a_policy_makes_up_share_one_outcome() -> None:
    tally = Tally(Served())
    for number in range(100):
        error = PolicyserveError("no")
        error.code = f"made_up_{number}"
        tally.on_refusal(7, 1, error)
    assert +tally.requests() == {Asked("arm", "auto", "other"): 100}


def test_a_session_counts_for_the_policy_that_it_was_opened_with() -> None:
    served = Served("one")
    tally = Tally(served)
    tally.on_session_opened(SessionFacts(1, "peer", "openpi"))
    answer(tally, 1)
    served.name = "two"
    tally.on_session_opened(SessionFacts(2, "peer", "openpi"))
    answer(tally, 2)
    assert set(+tally.requests()) == {Asked("one", "openpi", "answered"), Asked("two", "openpi", "answered")}


def test_a_session_that_waited_for_the_first_policy_counts_for_it() -> None:
    served = Served("")
    tally = Tally(served)
    tally.on_session_opened(SessionFacts(1, "peer", "openpi"))
    served.name = "one"
    tally.on_stage("")
    served.name = "two"
    answer(tally, 1)
    assert +tally.requests() == {Asked("one", "openpi", "answered"): 1}


def test_a_call_for_several_requests_is_work_once() -> None:
    tally = Tally(Served())
    tally.on_batch_ended(3, 0.5)
    for session in (1, 2, 3):
        answer(tally, session, 500.0)
    assert tally.busy_s == 0.5
    assert tally.calls == {3: 1}
    assert (tally.infer_ms.count, tally.infer_ms.total) == (3, 1500.0)


def test_bytes_of_messages_are_counted_whatever_kind_they_are_of() -> None:
    tally = Tally(Served())
    tally.on_message(1, memoryview(bytes(10)), 0.0)
    tally.on_message(1, EncodedText(memoryview(b"12345")), 0.0)
    tally.on_sent(1, bytes(7))
    tally.on_sent(1, "é")
    assert (tally.received_bytes, tally.sent_bytes) == (15, 9)


def test_reasons_for_another_policy_are_two() -> None:
    tally = Tally(Served())
    assert tally.replaced == {HUNG: 0, BROKE: 0}
    tally.on_policy_replaced("the policy", "a batch of 2 has been running for 3 s")
    tally.on_policy_replaced("the policy", "its process was killed by SIGKILL")
    tally.on_policy_replaced("the policy", "CUDA error: an illegal memory access")
    assert tally.replaced == {HUNG: 1, BROKE: 2}
