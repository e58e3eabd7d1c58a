"""The demos that come with the package."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.policy import PolicyInput
from policyserve.policies.vibe_rl.demo import DEMOS, demo_config, demo_directory, load_demo
from policyserve.policies.vibe_rl.presets import PRESETS


@pytest.mark.parametrize("name", DEMOS)
def test_every_demo_loads_and_answers(name: str) -> None:
    policy = load_demo(name)
    assert policy.spec.name == name
    (chunk,) = policy.infer([PolicyInput(policy.spec.example())])
    policy.spec.check_actions(chunk.actions)
    assert demo_config(name).env_id == PRESETS[name].config.env_id
    assert (demo_directory(name) / "checkpoints").is_dir()


def test_the_pole_is_pushed_towards_where_it_falls() -> None:
    policy = load_demo("cartpole_ppo")
    falling = [PolicyInput({"obs": np.array([0, 0, angle, 5 * angle], np.float32)}) for angle in (-0.15, 0.15)]
    assert [int(chunk.actions) for chunk in policy.infer(falling)] == [0, 1]


def test_the_pendulums_torque_uses_the_whole_range() -> None:
    policy = load_demo("pendulum_sac")
    angles = np.linspace(-np.pi, np.pi, 64, dtype=np.float32)
    rows = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    (chunk,) = policy.infer([PolicyInput({"obs": rows}, batch_size=64)])
    assert 1 < np.abs(chunk.actions).max() <= 2


def test_an_unknown_demo_is_refused_with_a_list() -> None:
    with pytest.raises(ConfigError, match="expected one of cartpole_ppo, pendulum_sac, got 'ant'"):
        load_demo("ant")
