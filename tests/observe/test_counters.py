"""What /healthz counts, told as a server tells it."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.errors import Overloaded
from policyserve.core.messages import Timing
from policyserve.core.observer import Observers, SessionFacts
from policyserve.core.policy import ActionChunk
from policyserve.observe.counters import Counters


def test_sessions_answers_and_errors_are_counted() -> None:
    counters = Counters()
    told = Observers(lambda _observer, error: pytest.fail(str(error)))
    told.add(counters)
    for number in (1, 2):
        for tell in told.session_opened:
            tell(SessionFacts(number, "local", "auto"))
    for latency_ms in (2.0, 4.0):
        for tell in told.answer:
            tell(1, 1, ActionChunk(np.zeros(1)), Timing(0.0, 1.0, latency_ms))
    for tell in told.refusal:
        tell(2, 1, Overloaded("too much"))
    for tell in told.session_closed:
        tell(1)
    assert (counters.sessions_opened, counters.sessions_open) == (2, 1)
    assert (counters.requests, counters.total_latency_ms, counters.mean_latency_ms) == (2, 6.0, 3.0)
    assert counters.errors == {"overloaded": 1}


def test_a_snapshot_holds_the_counts_of_its_moment() -> None:
    counters = Counters()
    counters.on_answer(1, 1, ActionChunk(np.zeros(1)), Timing(3.0, 1.0, 5.0))
    counters.on_batch_ended(4, 0.002)
    counters.on_refusal(2, 1, Overloaded("too much"))
    before = counters.snapshot()
    for _ in range(3000):
        counters.on_answer(1, 1, ActionChunk(np.zeros(1)), Timing(3.0, 1.0, 5.0))
        counters.on_batch_ended(4, 0.002)
    counters.on_refusal(2, 1, Overloaded("too much"))
    assert (before.round_trip_ms.count, before.refused) == (1, 1)
    now = counters.snapshot()
    assert (now.round_trip_ms.count, now.refused, counters.requests) == (3001, 2, 3001)
    assert (now.queue_ms.mean, now.policy_ms.mean, now.batch_size.mean) == pytest.approx((3.0, 2.0, 4.0))
