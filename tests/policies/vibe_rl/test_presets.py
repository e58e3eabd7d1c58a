"""The presets and environments."""

from __future__ import annotations

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl.config import DQNConfig, PPOConfig, RunnerConfig, SACConfig, TrainConfig
from policyserve.policies.vibe_rl.environments import ENVIRONMENTS, find_environment
from policyserve.policies.vibe_rl.presets import PRESETS, algorithm_of, find_preset, name_of


def test_there_are_the_five_presets_of_the_original() -> None:
    described = {name: preset.description for name, preset in PRESETS.items()}
    assert described == {
        "cartpole_ppo": "PPO on CartPole-v1 (fast sanity-check)",
        "cartpole_dqn": "DQN on CartPole-v1",
        "pendulum_ppo": "PPO on Pendulum-v1 (continuous control)",
        "pendulum_sac": "SAC on Pendulum-v1 (continuous control)",
        "gridworld_dqn": "DQN on GridWorld-v0 (tabular-scale discrete)",
    }


def test_presets_have_the_originals_values() -> None:
    assert PRESETS["cartpole_ppo"].config == TrainConfig("CartPole-v1", PPOConfig(num_envs=4))
    assert PRESETS["cartpole_dqn"].config == TrainConfig("CartPole-v1", DQNConfig())
    assert PRESETS["pendulum_sac"].config == TrainConfig(
        "Pendulum-v1", SACConfig(), RunnerConfig(total_timesteps=200_000)
    )
    grid = PRESETS["gridworld_dqn"].config
    assert isinstance(grid.algo, DQNConfig)
    assert (grid.algo.hidden_sizes, grid.algo.lr, grid.algo.batch_size) == ((64, 64), 5e-4, 32)
    assert (grid.runner.total_timesteps, grid.runner.buffer_size, grid.runner.warmup_steps) == (50_000, 50_000, 500)


def test_an_unknown_preset_is_refused_with_a_list() -> None:
    with pytest.raises(ConfigError, match=r"expected one of cartpole_ppo, cartpole_dqn, .*, got 'cartpole'"):
        find_preset("cartpole")
    assert find_preset("cartpole_ppo") is PRESETS["cartpole_ppo"]


def test_an_unknown_environment_is_refused_with_a_list() -> None:
    expected = "expected one of CartPole-v1, GridWorld-v0, Pendulum-v1, PixelGridWorld-v0, got 'Ant-v4'"
    with pytest.raises(ConfigError, match=expected):
        find_environment("Ant-v4")


def test_every_environment_has_one_kind_of_action() -> None:
    for environment in ENVIRONMENTS.values():
        assert (environment.action_count is None) != (environment.action_size is None)
    assert ENVIRONMENTS["PixelGridWorld-v0"].observation_size == 4800


def test_a_config_is_named_after_the_preset_of_its_environment_and_algorithm() -> None:
    for name, preset in PRESETS.items():
        assert name_of(preset.config) == name
    assert name_of(TrainConfig("CartPole-v1", PPOConfig((8,)))) == "cartpole_ppo"
    assert name_of(TrainConfig("PixelGridWorld-v0", DQNConfig())) == "pixelgridworld_v0_dqn"


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ConfigError, match="Unsupported algorithm config: str"):
        algorithm_of(TrainConfig(algo="PPO"))  # pyright: ignore[reportArgumentType]
