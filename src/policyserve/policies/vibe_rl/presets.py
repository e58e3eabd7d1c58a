"""The named training runs of vibe_rl: what `policyserve serve <preset>` starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.policies.vibe_rl.config import DQNConfig, PPOConfig, RunnerConfig, SACConfig, TrainConfig


@dataclass(frozen=True)
class Preset:
    """A training run and what to call it in a list."""

    config: TrainConfig
    description: str


PRESETS: Mapping[str, Preset] = {
    "cartpole_ppo": Preset(
        TrainConfig("CartPole-v1", PPOConfig(num_envs=4), RunnerConfig()),
        "PPO on CartPole-v1 (fast sanity-check)",
    ),
    "cartpole_dqn": Preset(
        TrainConfig("CartPole-v1", DQNConfig(), RunnerConfig()),
        "DQN on CartPole-v1",
    ),
    "pendulum_ppo": Preset(
        TrainConfig(
            "Pendulum-v1",
            PPOConfig(lr=3e-4, n_steps=2048, n_minibatches=32, n_epochs=10, ent_coef=0.0),
            RunnerConfig(total_timesteps=200_000, eval_every=10_000),
        ),
        "PPO on Pendulum-v1 (continuous control)",
    ),
    "pendulum_sac": Preset(
        TrainConfig("Pendulum-v1", SACConfig(), RunnerConfig(total_timesteps=200_000)),
        "SAC on Pendulum-v1 (continuous control)",
    ),
    "gridworld_dqn": Preset(
        TrainConfig(
            "GridWorld-v0",
            DQNConfig(
                hidden_sizes=(64, 64), lr=5e-4, batch_size=32, target_update_freq=500, epsilon_decay_steps=20_000
            ),
            RunnerConfig(total_timesteps=50_000, buffer_size=50_000, warmup_steps=500),
        ),
        "DQN on GridWorld-v0 (tabular-scale discrete)",
    ),
}


def find_preset(name: str) -> Preset:
    """Look up a preset; raises ConfigError that lists the known ones and names the nearest."""
    if name not in PRESETS:
        near = nearest(name, PRESETS)
        hint = f" (did you mean {near}?)" if near else ""
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}{hint}")
    return PRESETS[name]


def name_of(config: TrainConfig) -> str:
    """The preset of the same environment and algorithm, whatever else was changed, or a name made of the two."""
    for name, preset in PRESETS.items():
        if preset.config.env_id == config.env_id and type(preset.config.algo) is type(config.algo):
            return name
    return f"{config.env_id}_{algorithm_of(config)}".lower().replace("-", "_")


def algorithm_of(config: TrainConfig) -> str:
    """`PPO`, `DQN` or `SAC`; raises ConfigError for any other algo."""
    for algorithm, kind in (("PPO", PPOConfig), ("DQN", DQNConfig), ("SAC", SACConfig)):
        if isinstance(config.algo, kind):
            return algorithm
    raise ConfigError(f"Unsupported algorithm config: {type(config.algo).__name__}; expected PPO, DQN or SAC")
