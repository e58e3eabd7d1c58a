"""The scene of demo_flow: two ways that are right, an obstacle between them, a stage that drifts."""

from __future__ import annotations

import numpy as np

from policyserve.policies.demo_flow.scene import CONTROL_HZ, Scene, ways

BESIDE_S = 1.5  # the first obstacle is passed then


def test_the_ways_part_at_the_obstacle_and_are_one_between_obstacles() -> None:
    left, right = ways(np.array(BESIDE_S))
    assert left[1] - right[1] > 1
    np.testing.assert_allclose(*ways(np.array(3.0)), atol=1e-5)


def test_the_same_seed_is_the_same_episode_and_the_stage_drifts() -> None:
    one, again, other = Scene(200, 1), Scene(200, 1), Scene(200, 2)
    stages = [
        np.stack([scene.observation(step, scene.start)["stage"] for step in range(200)]) for scene in (one, other)
    ]
    np.testing.assert_array_equal(one.observation(7, one.start)["stage"], again.observation(7, again.start)["stage"])
    assert np.abs(stages[0] - stages[1]).max() > 0.01
    assert np.ptp(stages[0], axis=0).max() > 0.05
    assert np.abs(np.diff(stages[0], axis=0)).max() < 0.05


def test_an_observation_is_what_the_policy_takes() -> None:
    seen = Scene(10).observation(5, np.zeros(2))
    assert {key: (value.shape, value.dtype.name) for key, value in seen.items()} == {
        "position": ((2,), "float32"),
        "stage": ((2,), "float32"),
        "time_s": ((), "float64"),
    }
    assert seen["time_s"] == 0.1


def test_a_point_on_a_way_makes_no_error_and_one_between_them_is_in_the_obstacle() -> None:
    scene, step = Scene(200), int(BESIDE_S * CONTROL_HZ)
    drift = scene.observation(step, scene.start)["stage"]
    left, right = ways(np.array(BESIDE_S)) + drift
    assert scene.error(step, left) < 1e-6
    assert not scene.is_hit(step, left)
    assert scene.is_hit(step, (left + right) / 2)
    assert scene.error(step, (left + right) / 2) > 0.5
    assert not scene.is_hit(0, scene.start)


def test_a_point_follows_its_actions() -> None:
    scene, position = Scene(10), np.zeros(2)
    for _ in range(20):
        position = scene.moved(position, np.ones(2))
    np.testing.assert_allclose(position, 1, atol=1e-6)
    np.testing.assert_allclose(scene.moved(np.zeros(2), np.ones(2)), 0.6)
