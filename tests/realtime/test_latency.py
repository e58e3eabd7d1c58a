"""Latencies of virtual time."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.realtime.latency import LatencyModel


def drawn(model: LatencyModel, seed: int = 0, count: int = 20_000) -> Any:
    return np.array(list(islice(model.seconds(seed), count)))


def test_they_have_the_mean_and_the_deviation_that_were_said_and_none_is_negative() -> None:
    seconds = drawn(LatencyModel(120, 60))
    assert seconds.mean() == pytest.approx(0.12, rel=0.02)
    assert seconds.std() == pytest.approx(0.06, rel=0.05)
    assert seconds.min() > 0


def test_a_seed_brings_the_same_ones_and_another_seed_others() -> None:
    model = LatencyModel(120, 60)
    assert drawn(model, 3, 9).tolist() == drawn(model, 3, 9).tolist()
    assert drawn(model, 3, 9).tolist() != drawn(model, 4, 9).tolist()


@pytest.mark.parametrize("latency_ms", [0, 80])
def test_without_jitter_all_are_the_same(latency_ms: float) -> None:
    assert set(drawn(LatencyModel(latency_ms), count=5)) == {latency_ms / 1e3}


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), 1e9, True, "soon", None])
@pytest.mark.parametrize("name", ["latency_ms", "jitter_ms"])
def test_what_is_no_time_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected ms, 0 to 600000, got "):
        LatencyModel(**{name: wrong})


def test_nothing_cannot_vary() -> None:
    with pytest.raises(ConfigError, match=r"^jitter_ms: expected 0 with a latency of 0 ms, got 5$"):
        LatencyModel(0, 5)
