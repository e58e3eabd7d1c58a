"""Noise: the same for the same seed, session and chunk, and for no others."""

from __future__ import annotations

import numpy as np

from policyserve.policies.lerobot.noise import noise_of

SHAPE = (2, 8, 3)


def test_a_seeds_noise_is_the_same_each_time_and_each_sessions_its_own() -> None:
    draw, again = noise_of(7, SHAPE), noise_of(7, SHAPE)
    np.testing.assert_array_equal(draw(1, 0), again(1, 0))
    drawn = [draw(0, 0), draw(0, 1), draw(1, 0), noise_of(8, SHAPE)(0, 0)]
    assert all(one.shape == SHAPE and one.dtype == np.float32 for one in drawn)
    assert len({one.tobytes() for one in drawn}) == 4


def test_without_a_seed_it_is_another_each_time() -> None:
    assert (noise_of(None, SHAPE)(0, 0) != noise_of(None, SHAPE)(0, 0)).any()
