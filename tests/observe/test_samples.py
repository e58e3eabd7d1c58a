"""Two minutes, second by second."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.errors import Overloaded
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.observe.counters import Counters
from policyserve.observe.samples import KEPT, Samples
from policyserve.observe.watcher import Sums

CHUNK = ActionChunk(np.zeros(2, np.float32))


def test_samples_are_of_one_second_each_and_two_minutes_are_kept() -> None:
    counters = Counters()
    samples = Samples(counters, replicas=2)
    assert samples.newest is None
    for number in range(KEPT + 5):
        counters.on_answer(1, number, CHUNK, Timing(1.0, 2.0, 4.0))
        counters.on_refusal(1, None, Overloaded("full"))
        sums = Sums(answers=1, network_s=0.001, queue_ms=1.0, infer_ms=2.0, write_ms=1.0, busy_s=1.0)
        sums.sizes[3] += 1
        samples.add(sums, 0.5)
    lines = samples.lines()
    assert {len(line) for line in lines.values()} == {KEPT}
    newest = samples.newest
    assert newest is not None
    assert newest.answers_per_s == 2.0
    assert newest.p50_ms == pytest.approx(4.0)
    assert (newest.network_ms, newest.queue_ms, newest.infer_ms, newest.write_ms) == (1.0, 1.0, 2.0, 1.0)
    assert newest.busy == 1.0
    assert samples.refused() == {"overloaded": KEPT}
    assert samples.sizes() == [(3, 30)]


def test_a_second_without_answers_has_no_times() -> None:
    samples = Samples(Counters(), replicas=1)
    samples.add(Sums(), 1.0)
    assert samples.newest is not None
    assert samples.newest.p99_ms is samples.newest.queue_ms is None
    assert samples.newest.answers_per_s == 0
