"""The scene of demo_flow as an environment."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gymnasium")

import gymnasium  # noqa: TID253 - skipped without it

from policyserve.core.errors import ConfigError
from policyserve.gym import DemoFlowEnv
from policyserve.policies.demo_flow import FlowDemo, Scene


def test_gymnasium_finds_it_and_its_observations_are_in_its_space() -> None:
    env = gymnasium.make("DemoFlow-v0", steps=3)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    over = [env.step(np.zeros(2, np.float32))[3] for _ in range(3)]
    assert over == [False, False, True]


def test_it_shows_what_the_policy_takes() -> None:
    observation, _ = DemoFlowEnv().reset(seed=1)
    FlowDemo().spec.validate(observation)


def test_a_seed_is_the_scene_of_that_seed() -> None:
    env = DemoFlowEnv(steps=5)
    observation, _ = env.reset(seed=7)
    scene = Scene(6, 7)
    assert observation["position"] == pytest.approx(scene.start)
    moved = scene.moved(scene.start, np.array([0.1, 0.2]))
    observation, reward, _, _, info = env.step(np.array([0.1, 0.2], np.float32))
    assert observation["position"] == pytest.approx(moved)
    assert reward == pytest.approx(-scene.error(0, moved))
    assert info == {"off_m": -reward, "is_hit": scene.is_hit(0, moved)}


def test_no_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^steps: expected 1 or more, got 0$"):
        DemoFlowEnv(0)
