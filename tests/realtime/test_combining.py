"""How rows join, beyond what the originals' traces show (test_timeline)."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.realtime.combining import Ensemble, fade_shares, join


def test_a_fade_ends_one_step_before_the_new_row_alone() -> None:
    assert fade_shares(4).tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert fade_shares(0).tolist() == []


@pytest.mark.parametrize("m", [0.0, 0.01, -0.5, 2.0, 10.0, -10.0])
def test_an_ensemble_is_the_weighted_mean_of_all_its_chunks(m: float) -> None:
    chunks = np.random.default_rng(0).standard_normal((12, 1, 3))
    online = chunks[0]
    for count, chunk in enumerate(chunks[1:], 1):
        online = join(Ensemble(m), online, chunk, np.array([count]))
    weights = np.exp(-m * np.arange(12))
    np.testing.assert_allclose(online[0], (weights[:, None] * chunks[:, 0]).sum(0) / weights.sum(), atol=1e-9)


def test_a_thousand_chunks_overflow_nothing() -> None:
    assert join(Ensemble(10.0), np.zeros((1, 1)), np.ones((1, 1)), np.array([1000])) == [[0.0]]
    assert join(Ensemble(-10.0), np.zeros((1, 1)), np.ones((1, 1)), np.array([1000]))[0, 0] > 0.9999
