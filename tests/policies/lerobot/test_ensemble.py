"""Temporal ensembling against the sum that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.policies.lerobot.ensemble import Ensemble, Ensembling


@pytest.mark.parametrize("coefficient", [0.01, 0.0, -0.5])
def test_an_action_is_the_weighted_mean_of_all_chunks_that_speak_of_its_step(coefficient: float) -> None:
    steps, size = 9, 4
    chunks = np.random.default_rng(0).normal(size=(steps, size, 2)).astype(np.float32)
    ensembling, state = Ensembling(coefficient, size), None
    for step in range(steps):
        action, state = ensembling.add(state, chunks[step])
        said = [chunks[earlier, step - earlier] for earlier in range(max(0, step - size + 1), step + 1)]
        weights = np.exp(-coefficient * np.arange(len(said)))
        np.testing.assert_allclose(action, weights @ np.array(said) / weights.sum(), atol=1e-5)


def test_what_was_known_before_is_left_as_it_was() -> None:
    ensembling = Ensembling(0.1, 3)
    _action, state = ensembling.add(None, np.ones((3, 2), np.float32))
    before = Ensemble(state.means.copy(), state.counts.copy())
    ensembling.add(state, np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(state.means, before.means)
    np.testing.assert_array_equal(state.counts, before.counts)


def test_a_chunk_of_one_action_is_that_action() -> None:
    ensembling, state = Ensembling(0.1, 1), None
    for value in (1.0, 2.0):
        action, state = ensembling.add(state, np.full((1, 2), value, np.float32))
        np.testing.assert_array_equal(action, [value, value])
