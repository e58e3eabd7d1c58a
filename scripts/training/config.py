"""The recipes: those of the two demos, and one for each kind of action. Nothing here imports JAX."""

from __future__ import annotations

import math
from dataclasses import replace

from policyserve.policies.vibe_rl import PPOConfig, RunnerConfig, SACConfig, TrainConfig


def algorithm_name(config: TrainConfig) -> str:
    """`ppo` or `sac`, as metadata.json says it."""
    return "ppo" if isinstance(config.algo, PPOConfig) else "sac"


def demo_config(name: str, *, seed: int = 0, total_steps: int | None = None) -> TrainConfig:
    """Return the recipe of one demo, with the numbers that the run will really use."""
    return _settled(DEMOS[name], seed, total_steps)


def general_config(
    env_id: str, bounds: tuple[float, float] | None, *, seed: int = 0, total_steps: int | None = None
) -> TrainConfig:
    """Return a recipe that gets most environments with small vectors somewhere: PPO, or SAC for continuous actions.

    bounds: of a continuous action; None: actions are discrete.
    """
    if bounds is None:
        return _settled(replace(_DISCRETE, env_id=env_id), seed, total_steps)
    assert isinstance(_CONTINUOUS.algo, SACConfig)
    algo = replace(_CONTINUOUS.algo, action_low=bounds[0], action_high=bounds[1])
    return _settled(replace(_CONTINUOUS, env_id=env_id, algo=algo), seed, total_steps)


def _settled(recipe: TrainConfig, seed: int, total_steps: int | None) -> TrainConfig:
    """The numbers that a run will really use.

    total_steps is rounded up to whole evaluation intervals, and an interval to whole PPO rollouts.
    """
    runner = recipe.runner
    wanted = runner.total_timesteps if total_steps is None else total_steps
    rollout = recipe.algo.n_steps * recipe.algo.num_envs if isinstance(recipe.algo, PPOConfig) else 1
    interval = math.ceil(min(runner.eval_every, wanted) / rollout) * rollout
    total = math.ceil(wanted / interval) * interval
    runner = replace(
        runner,
        seed=seed,
        total_timesteps=total,
        eval_every=interval,
        log_interval=interval,
        checkpoint_interval=interval,
        buffer_size=min(runner.buffer_size, total),
        warmup_steps=min(runner.warmup_steps, total // 2),
    )
    return replace(recipe, runner=runner)


# Only the best checkpoint is kept, and an earlier demo in the package is replaced.
_KEEP_BEST = RunnerConfig(eval_episodes=100, max_checkpoints=1, overwrite=True)

DEMOS: dict[str, TrainConfig] = {
    "cartpole_ppo": TrainConfig(
        "CartPole-v1",
        # With lr 2.5e-4 it gets there too, but forgets and relearns on the way.
        PPOConfig(num_envs=32, lr=1e-3, n_minibatches=8),
        replace(_KEEP_BEST, total_timesteps=409_600, eval_every=8_192, num_envs=32),
    ),
    "pendulum_sac": TrainConfig(
        "Pendulum-v1",
        SACConfig(
            hidden_sizes=(64, 64), actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3, action_low=-2.0, action_high=2.0
        ),
        replace(_KEEP_BEST, total_timesteps=30_000, eval_every=1_000),
    ),
}

# An evaluation plays 20 episodes: Gymnasium's environments are played one step at a time.
_KEEP_BEST_OF_20 = replace(_KEEP_BEST, eval_episodes=20)

_DISCRETE = TrainConfig(
    "",
    PPOConfig(num_envs=8, lr=1e-3, n_minibatches=8),
    replace(_KEEP_BEST_OF_20, total_timesteps=204_800, eval_every=10_240, num_envs=8),
)
_CONTINUOUS = TrainConfig(
    "",
    SACConfig(hidden_sizes=(64, 64), actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3),
    replace(_KEEP_BEST_OF_20, total_timesteps=30_000, eval_every=1_500),
)
