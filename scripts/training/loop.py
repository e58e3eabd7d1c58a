"""The loop around both algorithms: measure the observations, train, evaluate, keep the best."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from tqdm import tqdm

from policyserve.policies.vibe_rl import PPOConfig, SACConfig, TrainConfig

from .envs import ENVIRONMENTS, Environment, begin_episode, play_step
from .ppo import PPO
from .sac import SAC

_MEASURED_ENVS, _MEASURED_STEPS = 64, 1_000
_RECENT_EPISODES = 20


class NormStats(NamedTuple):
    """The spread of each observation number, (D,) float32 each."""

    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q99: np.ndarray

    def normalize(self, obs: Array) -> Array:
        """Scale as the server does before it calls the policy."""
        return (obs - self.mean) / np.maximum(self.std, np.float32(1e-8))


class Evaluation(NamedTuple):
    """One row of the learning curve."""

    env_steps: int
    mean: float
    std: float
    recent_return: float  # of the last training episodes; NaN until one has ended


@dataclass(frozen=True)
class Trained:
    """The best policy of a run, and how the run went."""

    norm_stats: NormStats
    state: Any  # PPOState or SACState
    best: Evaluation
    curve: tuple[Evaluation, ...]


class Learner(Protocol):
    """PPO or SAC. A carry holds what training goes on from; its state is what a checkpoint keeps."""

    def start(self, key: Array) -> Any: ...

    def advance(self, carry: Any, env_steps: int) -> tuple[Any, Array]: ...

    def act(self, state: Any, obs: Array) -> Array: ...


def train(config: TrainConfig) -> Trained:
    """Train as config says. The same seed on the same machine and versions gives the same bytes."""
    runner = config.runner
    measure_key, start_key, evaluate_key = jax.random.split(jax.random.PRNGKey(runner.seed), 3)
    stats = measure_observations(ENVIRONMENTS[config.env_id], measure_key)
    env = _normalized(ENVIRONMENTS[config.env_id], stats)
    learner = _make_learner(config, env)
    carry = learner.start(start_key)
    recent: deque[float] = deque(maxlen=_RECENT_EPISODES)
    curve: list[Evaluation] = []
    best, best_state = None, None
    with tqdm(total=runner.total_timesteps, unit="step", disable=not runner.progress_bar) as bar:
        for env_steps in range(runner.eval_every, runner.total_timesteps + 1, runner.eval_every):
            carry, finished = learner.advance(carry, runner.eval_every)
            recent.extend(np.asarray(finished)[~np.isnan(finished)].tolist())
            returns = evaluate(learner, env, carry.state, evaluate_key, runner.eval_episodes)
            running = float(np.mean(recent)) if recent else float("nan")
            curve.append(Evaluation(env_steps, float(returns.mean()), float(returns.std()), running))
            if best is None or curve[-1].mean >= best.mean:  # of equals the later, it has seen more
                best, best_state = curve[-1], jax.device_get(carry.state)
            bar.update(runner.eval_every)
            bar.set_postfix_str(f"return {running:.1f}, best evaluation {best.mean:.1f}")
    assert best is not None  # total_timesteps is at least one interval
    return Trained(stats, best_state, best, tuple(curve))


def measure_observations(env: Environment, key: Array) -> NormStats:
    """Measure what a random policy sees in 64 environments, 1000 steps each."""

    def one_environment(key: Array) -> Array:
        def step(episode: Any, key: Array) -> tuple[Any, Array]:
            action_key, reset_key = jax.random.split(key)
            episode, transition = play_step(env, episode, env.random_action(action_key), reset_key)
            return episode, transition.obs

        begin_key, steps_key = jax.random.split(key)
        keys = jax.random.split(steps_key, _MEASURED_STEPS)
        return lax.scan(step, begin_episode(env, begin_key), keys)[1]

    observations = jax.jit(jax.vmap(one_environment))(jax.random.split(key, _MEASURED_ENVS))
    rows = np.asarray(observations).reshape(-1, env.observation_size)
    q01, q99 = np.percentile(rows, [1, 99], axis=0).astype(np.float32)
    return NormStats(rows.mean(axis=0), rows.std(axis=0), q01, q99)


def evaluate(learner: Learner, env: Environment, state: Any, key: Array, episodes: int) -> np.ndarray:
    """Play the deterministic policy and return each episode's return, (episodes,). One key, the same starts."""
    return np.asarray(_play_episodes(learner, env, state, jax.random.split(key, episodes)))


@partial(jax.jit, static_argnums=(0, 1))
def _play_episodes(learner: Learner, env: Environment, state: Any, keys: Array) -> Array:
    def one_episode(key: Array) -> Array:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            episode, first_return = carry
            episode, transition = play_step(env, episode, learner.act(state, env.observe(episode.state)), key)
            # Episodes that follow a short first one do not count.
            return (episode, jnp.where(jnp.isnan(first_return), transition.finished_return, first_return)), None

        start = (begin_episode(env, key), jnp.float32(jnp.nan))
        return lax.scan(step, start, length=env.max_steps)[0][1]

    return jax.vmap(one_episode)(keys)


def _normalized(env: Environment, stats: NormStats) -> Environment:
    """Let an environment show what the server will show to the policy."""
    return replace(env, observe=lambda state: stats.normalize(env.observe(state)))


def _make_learner(config: TrainConfig, env: Environment) -> Learner:
    if isinstance(config.algo, PPOConfig):
        return PPO(env, config.algo)
    assert isinstance(config.algo, SACConfig), "the recipes are PPO's and SAC's"
    return SAC(env, config.algo, config.runner.buffer_size, config.runner.warmup_steps)
