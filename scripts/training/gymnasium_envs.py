"""Gymnasium's environments, as training needs them: what they show and how they are acted in, and episodes in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from policyserve.bench.environments import find_environment
from policyserve.core.errors import ConfigError
from policyserve.policies.importing import reason

from .envs import EnvFacts, Transition
from .norm_stats import NormStats

_LONGEST_EPISODE = 1_000  # steps, where the environment itself has no limit
_PLAYED_AT_ONCE = 10  # episodes of an evaluation


def look_at(env_id: str) -> tuple[EnvFacts, Actions]:
    """What training has to know of an environment; raises ConfigError that says why none can be done there."""
    find_environment(env_id)
    try:
        env = _make(env_id)
    except Exception as error:  # a stranger's environment
        is_advice = type(error).__module__.startswith("gymnasium")  # what to install, say
        raise ConfigError(f"{env_id} cannot be made: {error if is_advice else reason(error)}") from error
    try:
        size = _observation_size(env_id, env.observation_space)
        actions = _actions(env_id, env.action_space)
        solved = None if env.spec is None else env.spec.reward_threshold
        return EnvFacts(env_id, size, actions.size, solved), actions
    finally:
        env.close()


@dataclass(frozen=True)
class Actions:
    """How an environment is acted in. size: how many actions, or how many numbers; low, high: of those, (size,)."""

    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def is_discrete(self) -> bool:
        return not self.low

    @property
    def bounds(self) -> tuple[float, float]:
        """What SAC's -1 and 1 stand for: the bounds where they are the same for all numbers, else `stats` scales."""
        return (-1.0, 1.0) if self.stats is not None else (self.low[0], self.high[0])

    @property
    def stats(self) -> NormStats | None:
        """How a server gets from -1 … 1 to each number's own bounds; None where it need not."""
        if self.is_discrete or len(set(self.low)) == len(set(self.high)) == 1:
            return None
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        return NormStats((low + high) / 2, (high - low) / 2, low, high)

    def random(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Some actions of a policy that acts at random, (count,) or (count, size)."""
        if self.is_discrete:
            return generator.integers(self.size, size=count)
        return generator.uniform(*self.bounds, (count, self.size)).astype(np.float32)

    def of_policy(self, action: Any) -> Any:
        """What the environment is given for an action of the policy's."""
        if self.is_discrete:
            return int(action)
        if self.stats is not None:
            action = self.stats.mean + self.stats.std * action
        return np.clip(action, self.low, self.high).astype(np.float32)


class Played:
    """Some copies of an environment, each in an episode; one that ends is followed by the next.

    discount: given, rewards are scaled by the deviation of their discounted sum, as PPO needs it.
    """

    def __init__(self, env_id: str, actions: Actions, count: int, seed: int, discount: float | None = None) -> None:
        self._actions = actions
        self._envs = [_make(env_id, discount) for _ in range(count)]
        self.obs = np.stack([self._reset(env, seed + number) for number, env in enumerate(self._envs)])  # (N, D)

    def step(self, actions: np.ndarray) -> Transition:
        """Act in all. The leaves of what is returned are (N, ...), its obs those before the step."""
        before = self.obs
        rows = [self._step_one(number, action) for number, action in enumerate(actions)]
        reward, following, terminated, ended, finished = (np.stack(column) for column in zip(*rows, strict=True))
        return Transition(before, np.asarray(actions), reward, following, terminated, ended, finished)  # pyright: ignore[reportArgumentType]

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _step_one(self, number: int, action: Any) -> tuple[Any, ...]:
        env = self._envs[number]
        obs, reward, terminated, truncated, info = env.step(self._actions.of_policy(action))
        ended = bool(terminated or truncated)
        following = np.asarray(obs, np.float32)
        self.obs = self.obs.copy()
        self.obs[number] = self._reset(env) if ended else following
        finished = float(info["episode"]["r"]) if ended else np.nan
        return np.float32(reward), following, np.bool_(terminated), np.bool_(ended), np.float32(finished)

    def _reset(self, env: Any, seed: int | None = None) -> np.ndarray:
        return np.asarray(env.reset(seed=seed)[0], np.float32)


def play_episodes(
    env_id: str, actions: Actions, act: Callable[[np.ndarray], Any], seed: int, episodes: int
) -> np.ndarray:
    """The return of each of some episodes, (episodes,); act: of observations, (N, D). One seed, the same starts."""
    returns: list[float] = []
    while len(returns) < episodes:
        count = min(_PLAYED_AT_ONCE, episodes - len(returns))
        played = Played(env_id, actions, count, seed + len(returns))
        first, is_over = np.zeros(count, np.float32), np.zeros(count, bool)
        while not is_over.all():
            step = played.step(np.asarray(act(played.obs)))
            # Episodes that follow a short first one do not count.
            first = np.where(is_over, first, step.finished_return)
            is_over |= np.asarray(step.ended)
        played.close()
        returns += first.tolist()
    return np.asarray(returns)


def stacked(steps: Sequence[Transition], stats: NormStats) -> Transition:
    """Transitions in a row, their leaves (T, N, ...), with observations as the policy sees them."""
    rows: Transition = jax.tree.map(lambda *leaves: np.stack(leaves), *steps)
    return rows._replace(obs=stats.normalize(rows.obs), next_obs=stats.normalize(rows.next_obs))


def _make(env_id: str, discount: float | None = None) -> Any:
    env = gymnasium.make(env_id, disable_env_checker=True)
    if env.spec is None or env.spec.max_episode_steps is None:
        env = gymnasium.wrappers.TimeLimit(env, _LONGEST_EPISODE)
    env = gymnasium.wrappers.RecordEpisodeStatistics(env)
    return env if discount is None else gymnasium.wrappers.NormalizeReward(env, gamma=discount)


def _observation_size(env_id: str, space: Any) -> int:
    if not isinstance(space, spaces.Box):
        raise ConfigError(f"{env_id} shows {_named(space)}; expected a vector of numbers, a Box of one axis")
    if len(space.shape) != 1 or not space.shape[0]:
        what = "pictures" if space.dtype == np.uint8 and len(space.shape) >= 2 else "arrays"
        shown = f"{what} of {space.dtype} {space.shape}"
        raise ConfigError(f"{env_id} shows {shown}; expected a vector of numbers: there is no network for others here")
    return space.shape[0]


def _actions(env_id: str, space: Any) -> Actions:
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Actions(int(space.n))
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and np.dtype(space.dtype).kind == "f":
        low, high = tuple(map(float, space.low)), tuple(map(float, space.high))
        if low and np.isfinite([*low, *high]).all() and all(one < other for one, other in zip(low, high, strict=True)):
            return Actions(len(low), low, high)
    expected = "actions 0, 1, 2 … (Discrete), or a vector of floats with bounds (Box of one axis)"
    raise ConfigError(f"{env_id} acts by {_named(space)}; expected {expected}")


def _named(space: Any) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{type(space).__name__}(…)"
