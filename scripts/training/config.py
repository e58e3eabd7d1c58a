"""What a training run is told, field for field as config.json keeps it, and the recipes of the two demos.

The fields and their names are those of vibe_rl's TrainConfig; nothing here imports JAX.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class PPOConfig:
    hidden_sizes: tuple[int, ...] = (64, 64)
    lr: float = 2.5e-4
    max_grad_norm: float = 0.5
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_eps: float = 0.2
    vf_coef: float = 0.5
    ent_coef: float = 0.01
    n_steps: int = 128
    n_minibatches: int = 4
    n_epochs: int = 4
    num_envs: int = 1
    shared_backbone: bool = False


@dataclass(frozen=True)
class SACConfig:
    hidden_sizes: tuple[int, ...] = (256, 256)
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    alpha_lr: float = 3e-4
    gamma: float = 0.99
    batch_size: int = 256
    max_grad_norm: float = 10.0
    tau: float = 0.005
    init_alpha: float = 1.0
    autotune_alpha: bool = True
    target_entropy_scale: float = 1.0
    action_low: float = -1.0
    action_high: float = 1.0
    log_std_min: float = -20.0
    log_std_max: float = 2.0


@dataclass(frozen=True)
class RunnerConfig:
    total_timesteps: int = 100_000
    eval_every: int = 5_000
    eval_episodes: int = 10
    log_interval: int = 1_000
    buffer_size: int = 100_000
    warmup_steps: int = 1_000
    num_devices: int | None = None
    num_envs: int = 1
    fsdp_devices: int = 1
    seed: int = 0
    checkpoint_dir: str | None = None
    checkpoint_interval: int = 5_000
    max_checkpoints: int = 5
    keep_period: int | None = None
    resume: bool = False
    overwrite: bool = False
    progress_bar: bool = True
    plot: bool = True


@dataclass(frozen=True)
class TrainConfig:
    env_id: str
    algo: PPOConfig | SACConfig
    runner: RunnerConfig = field(default_factory=RunnerConfig)

    @property
    def algo_name(self) -> str:
        return "ppo" if isinstance(self.algo, PPOConfig) else "sac"


def demo_config(name: str, *, seed: int = 0, total_steps: int | None = None) -> TrainConfig:
    """Return the recipe of one demo, with the numbers that the run will really use.

    total_steps is rounded up to whole evaluation intervals, and an interval to whole PPO rollouts.
    """
    recipe = DEMOS[name]
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
        # With the preset's 4 environments and lr 2.5e-4 it gets there too, but forgets and relearns on the way.
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
