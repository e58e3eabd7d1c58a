"""What is collected while somebody looks, by a clock that stands."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.observe.looks import Look
from policyserve.observe.watcher import MOST_LOOKS, Sums, Watcher

CHUNK = ActionChunk(np.zeros(2, np.float32))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def watcher(clock: Clock) -> Watcher:
    return Watcher(lambda _session: None, lambda session: 0.004, clock)


def test_a_seconds_times_are_added_up_over_its_answers() -> None:
    watching = watcher(Clock())
    for ticket in range(2):
        watching.on_request(1, ticket, {}, 0.0)
        watching.on_answer(1, ticket, CHUNK, Timing(1.0, 10.0, 13.0))
    sums = watching.take()
    assert (sums.answers, sums.queue_ms, sums.infer_ms, sums.write_ms) == (2, 2.0, 20.0, 4.0)
    assert sums.network_s == pytest.approx(0.008)
    assert watching.take() == Sums()


def test_a_long_call_counts_in_each_second_that_it_lasts() -> None:
    clock = Clock()
    watching = watcher(clock)
    clock.now += 0.5
    watching.on_batch_started([1, 2], clock.now)
    clock.now += 0.5
    assert watching.take().busy_s == pytest.approx(0.5)
    clock.now += 1
    assert watching.take().busy_s == pytest.approx(1.0)
    clock.now += 0.25
    watching.on_batch_ended(2, 1.75)
    clock.now += 0.75
    sums = watching.take()
    assert sums.busy_s == pytest.approx(0.25)
    assert sums.sizes == {2: 1}


def test_a_call_that_began_before_somebody_looked_leaves_no_trace_behind() -> None:
    clock = Clock()
    watching = watcher(clock)
    clock.now += 1
    watching.on_batch_ended(1, 5.0)
    watching.take()
    clock.now += 1
    assert watching.take().busy_s == 0


@pytest.mark.parametrize("per_s", [4, 10, 1000])
def test_a_sessions_rate_is_that_of_the_last_seconds(per_s: int) -> None:
    clock = Clock()
    watching = watcher(clock)
    for _ in range(8):
        for _ in range(per_s):
            clock.now += 1 / per_s
            watching.on_answer(1, 1, CHUNK, Timing(0.0, 0.0, 7.0))
        watching.take()
    assert watching.pace(1).hz == pytest.approx(per_s, rel=0.02)
    assert watching.pace(1).p99_ms == 7.0
    for _ in range(6):
        clock.now += 1
        watching.take()
    assert watching.pace(1).hz == 0
    assert watching.pace(2) == (0.0, None)


def test_a_session_has_a_rate_before_the_first_second_is_over() -> None:
    watching = watcher(Clock())
    for _ in range(3):
        watching.on_answer(1, 1, CHUNK, Timing(0.0, 0.0, 7.0))
    assert watching.pace(1).hz == 3


def test_looks_are_few_and_end_when_nobody_asks_or_the_session_closes() -> None:
    clock = Clock()
    watching = watcher(clock)
    for session in range(20):
        watching.look(session, lambda: Look(None))
    assert list(watching.looks) == list(range(20 - MOST_LOOKS, 20))
    watching.on_session_closed(19)
    assert 19 not in watching.looks
    clock.now += 6
    kept = watching.look(18, lambda: Look(None))
    watching.forget_looks(clock.now - 5)
    assert watching.looks == {18: kept}


def test_values_that_cannot_be_shown_disturb_nobody() -> None:
    class Strange:
        def items(self) -> None:
            raise RuntimeError("no items")

    watching = watcher(Clock())
    watching.look(1, lambda: Look(None))
    watching.on_request(1, 1, Strange(), 0.0)
    watching.on_answer(1, 1, ActionChunk(np.array(["a"])), Timing(0.0, 0.0, 0.0))
    assert watching.take().answers == 1
