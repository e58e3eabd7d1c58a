"""The loop around both algorithms: measure the observations, train, evaluate, keep the best."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from policyserve.policies.vibe_rl import TrainConfig

from .envs import EnvFacts
from .norm_stats import NormStats, measured

_RECENT_EPISODES = 20


class Evaluation(NamedTuple):
    """One row of the learning curve."""

    env_steps: int
    mean: float
    std: float
    worst: float
    best: float
    recent_return: float  # of the last training episodes; NaN until one has ended


@dataclass(frozen=True)
class Trained:
    """The best policy of a run, and how the run went."""

    norm_stats: NormStats
    state: Any  # PPOState or SACState
    best: Evaluation
    curve: tuple[Evaluation, ...]


class Learner(Protocol):
    """PPO or SAC in a world. A carry holds what training goes on from; its state is what a checkpoint keeps."""

    def start(self, key: Array) -> Any: ...

    def advance(self, carry: Any, env_steps: int) -> tuple[Any, Any]: ...

    def evaluate(self, state: Any, key: Array, episodes: int) -> np.ndarray: ...


class World(Protocol):
    """Where a policy is trained: an environment of ours, or one of Gymnasium's."""

    @property
    def facts(self) -> EnvFacts: ...

    def observations(self, key: Array) -> np.ndarray: ...

    def learner(self, config: TrainConfig, stats: NormStats) -> Learner: ...


OnEvaluated: TypeAlias = Callable[[NormStats, Evaluation, Any], None]


def train(config: TrainConfig, world: World, on_evaluated: OnEvaluated | None = None) -> Trained:
    """Train as config says. The same seed on the same machine and versions gives the same bytes.

    on_evaluated: told of each evaluation, with the state that was evaluated.
    """
    runner = config.runner
    measure_key, start_key, evaluate_key = jax.random.split(jax.random.PRNGKey(runner.seed), 3)
    stats = measured(world.observations(measure_key))
    learner = world.learner(config, stats)
    carry = learner.start(start_key)
    recent: deque[float] = deque(maxlen=_RECENT_EPISODES)
    curve: list[Evaluation] = []
    best, best_state = None, None
    with progress_bar(runner.total_timesteps, is_shown=runner.progress_bar) as bar:
        for env_steps in range(runner.eval_every, runner.total_timesteps + 1, runner.eval_every):
            carry, finished = learner.advance(carry, runner.eval_every)
            recent.extend(np.asarray(finished)[~np.isnan(finished)].tolist())
            returns = learner.evaluate(carry.state, evaluate_key, runner.eval_episodes)
            running = float(np.mean(recent)) if recent else float("nan")
            mean, std, worst, best_return = map(float, (returns.mean(), returns.std(), returns.min(), returns.max()))
            curve.append(Evaluation(env_steps, mean, std, worst, best_return, running))
            if on_evaluated is not None:
                on_evaluated(stats, curve[-1], jax.device_get(carry.state))
            if best is None or curve[-1].mean >= best.mean:  # of equals the later, it has seen more
                best, best_state = curve[-1], jax.device_get(carry.state)
            bar.update(runner.eval_every)
            bar.set_postfix_str(postfix(running, best.mean))
    assert best is not None  # total_timesteps is at least one interval
    return Trained(stats, best_state, best, tuple(curve))


def progress_bar(total: int, is_shown: bool = True, **options: Any) -> Any:
    """A bar of steps that leaves room for itself in 80 columns: the rate is left out for what is learned."""
    form = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    return tqdm(total=total, unit_scale=True, bar_format=form, dynamic_ncols=True, disable=not is_shown, **options)


def postfix(running: float, best: float) -> str:
    """What stands behind the bar: the return of the last training episodes, and the best evaluation's."""
    return f"return {_short(running)}, best {_short(best)}"


def _short(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
