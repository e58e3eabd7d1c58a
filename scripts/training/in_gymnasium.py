"""Training in Gymnasium's environments: they are played step by step, and only learning is compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array, lax

from policyserve.bench.environments import find_environment
from policyserve.core.errors import ConfigError
from policyserve.policies.importing import reason
from policyserve.policies.vibe_rl import PPOConfig, SACConfig, TrainConfig

from .envs import Task, Transition
from .norm_stats import NormStats
from .ppo import PPO, PPOState
from .sac import SAC, SACState

_MEASURED_ENVS, _MEASURED_STEPS = 4, 2_000
_LONGEST_EPISODE = 1_000  # steps, where the environment itself has no limit
_PLAYED_AT_ONCE = 10  # episodes of an evaluation
_UPDATES_AT_ONCE = 16  # of SAC: a compiled call costs as much as several of them
_MOST_SEED = 2**31


def open_world(env_id: str) -> GymnasiumWorld:
    """Look at an environment; raises ConfigError that says why a policy cannot be trained there."""
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
        return GymnasiumWorld(Task(env_id, size, actions.size, solved), actions)
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

    def of_policy(self, action: Any) -> Any:
        """What the environment is given for an action of the policy's."""
        if self.is_discrete:
            return int(action)
        if self.stats is not None:
            action = self.stats.mean + self.stats.std * action
        return np.clip(action, self.low, self.high).astype(np.float32)


@dataclass(frozen=True)
class GymnasiumWorld:
    """One of Gymnasium's environments, as the loop trains in it."""

    task: Task
    actions: Actions

    def observations(self, key: Array) -> np.ndarray:
        """What a random policy sees in 4 environments, 2000 steps each, (n, D)."""
        random = np.random.default_rng(_seed(key))
        played = Played(self, _MEASURED_ENVS, _seed(key))
        low, high = self.actions.bounds if not self.actions.is_discrete else (0.0, 0.0)
        rows = []
        for _ in range(_MEASURED_STEPS):
            shape = (_MEASURED_ENVS,) if self.actions.is_discrete else (_MEASURED_ENVS, self.actions.size)
            chosen = random.integers(self.actions.size, size=shape) if self.actions.is_discrete else None
            rows.append(played.step(random.uniform(low, high, shape) if chosen is None else chosen).obs)
        played.close()
        return np.concatenate(rows)

    def learner(self, config: TrainConfig, stats: NormStats) -> GymnasiumPPO | GymnasiumSAC:
        if isinstance(config.algo, PPOConfig):
            return GymnasiumPPO(self, stats, PPO(self.task, config.algo))
        assert isinstance(config.algo, SACConfig), "the recipes are PPO's and SAC's"
        runner = config.runner
        return GymnasiumSAC(self, stats, SAC(self.task, config.algo), runner.buffer_size, runner.warmup_steps)


class Played:
    """Some copies of an environment, each in an episode; one that ends is followed by the next.

    discount: given, rewards are scaled by the deviation of their discounted sum, as PPO needs it.
    """

    def __init__(self, world: GymnasiumWorld, count: int, seed: int, discount: float | None = None) -> None:
        self._actions = world.actions
        self._envs = [_make(world.task.env_id, discount) for _ in range(count)]
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


class PPOCarry(NamedTuple):
    """What one update hands to the next."""

    state: PPOState
    played: Played


@dataclass(frozen=True, eq=False)
class GymnasiumPPO:
    """PPO in several copies of one environment."""

    world: GymnasiumWorld
    stats: NormStats
    algorithm: PPO

    def start(self, key: Array) -> PPOCarry:
        actor_key, critic_key, episode_key, rng = jax.random.split(key, 4)
        config = self.algorithm.config
        played = Played(self.world, config.num_envs, _seed(episode_key), discount=config.gamma)
        return PPOCarry(self.algorithm.new_state(actor_key, critic_key, rng), played)

    def advance(self, carry: PPOCarry, env_steps: int) -> tuple[PPOCarry, np.ndarray]:
        """Train for env_steps, a multiple of one rollout. Also returns every step's finished_return, flat."""
        config = self.algorithm.config
        finished = []
        for _ in range(env_steps // (config.n_steps * config.num_envs)):
            carry, returns = self._update(carry)
            finished.append(returns.reshape(-1))
        return carry, np.concatenate(finished)

    def evaluate(self, state: PPOState, key: Array, episodes: int) -> np.ndarray:
        return _play_episodes(self.world, lambda obs: self._act(state, self.stats.normalize(obs)), key, episodes)

    def _update(self, carry: PPOCarry) -> tuple[PPOCarry, np.ndarray]:
        rng, improve_key, sample_key = jax.random.split(carry.state.rng, 3)
        state, steps, log_probs = replace(carry.state, rng=rng), [], []
        for key in jax.random.split(sample_key, self.algorithm.config.n_steps):
            actions, log_prob = self._sample(state, self.stats.normalize(carry.played.obs), key)
            steps.append(carry.played.step(np.asarray(actions)))
            log_probs.append(log_prob)
        transitions = _stacked(steps, self.stats)
        state = self._learn(state, transitions, jnp.stack(log_probs), improve_key)
        return PPOCarry(state, carry.played), np.asarray(transitions.finished_return)

    @partial(jax.jit, static_argnums=0)
    def _act(self, state: PPOState, obs: Array) -> Array:
        return jax.vmap(lambda one: self.algorithm.act(state, one))(obs)

    @partial(jax.jit, static_argnums=0)
    def _sample(self, state: PPOState, obs: Array, key: Array) -> tuple[Array, Array]:
        return self.algorithm.sample(state, obs, key)

    @partial(jax.jit, static_argnums=0)
    def _learn(self, state: PPOState, transitions: Transition, log_probs: Array, key: Array) -> PPOState:
        return self.algorithm.learn(state, transitions, log_probs, key)


@dataclass
class SACCarry:
    """What one chunk of environment steps hands to the next. replay: leaves (buffer_size, ...)."""

    state: SACState
    played: Played
    random: np.random.Generator
    replay: Transition | None = None
    env_steps: int = 0
    finished: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class GymnasiumSAC:
    """Soft actor-critic in one environment."""

    world: GymnasiumWorld
    stats: NormStats
    algorithm: SAC
    buffer_size: int
    warmup_steps: int

    def start(self, key: Array) -> SACCarry:
        actor_key, critic_key, episode_key, rng = jax.random.split(key, 4)
        seed = _seed(episode_key)
        state = self.algorithm.new_state(actor_key, critic_key, rng)
        return SACCarry(state, Played(self.world, 1, seed), np.random.default_rng(seed))

    def advance(self, carry: SACCarry, env_steps: int) -> tuple[SACCarry, np.ndarray]:
        """Train for env_steps: some of them (random during warm-up), then as many updates. Changes the carry."""
        carry.finished = []
        done = 0
        while done < env_steps:
            steps = min(_UPDATES_AT_ONCE, env_steps - done)
            for _ in range(steps):
                self._step(carry)
            if carry.env_steps > self.warmup_steps:
                self._improve(carry, steps)
            done += steps
        return carry, np.concatenate(carry.finished)

    def evaluate(self, state: SACState, key: Array, episodes: int) -> np.ndarray:
        return _play_episodes(self.world, lambda obs: self._act(state, self.stats.normalize(obs)), key, episodes)

    def _step(self, carry: SACCarry) -> None:
        rng, key = jax.random.split(carry.state.rng)
        carry.state = replace(carry.state, rng=rng)
        if carry.env_steps < self.warmup_steps:
            action = carry.random.uniform(*self.world.actions.bounds, (1, self.world.actions.size)).astype(np.float32)
        else:
            action = np.asarray(self._sample(carry.state, self.stats.normalize(carry.played.obs[0]), key))[None]
        transition = _stacked([carry.played.step(action)], self.stats)
        row = jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], transition)
        if carry.replay is None:
            carry.replay = jax.tree.map(lambda leaf: np.zeros((self.buffer_size, *leaf.shape), leaf.dtype), row)
        jax.tree.map(lambda kept, new: kept.__setitem__(carry.env_steps % self.buffer_size, new), carry.replay, row)
        carry.env_steps += 1
        carry.finished.append(np.asarray(transition.finished_return).reshape(-1))

    def _improve(self, carry: SACCarry, updates: int) -> None:
        filled = min(carry.env_steps, self.buffer_size)
        rows = carry.random.integers(filled, size=(updates, self.algorithm.config.batch_size))
        rng, key = jax.random.split(carry.state.rng)
        batches = jax.tree.map(lambda kept: kept[rows], carry.replay)
        carry.state = self._updated(replace(carry.state, rng=rng), batches, jax.random.split(key, updates))

    @partial(jax.jit, static_argnums=0)
    def _act(self, state: SACState, obs: Array) -> Array:
        return jax.vmap(lambda one: self.algorithm.act(state, one))(obs)

    @partial(jax.jit, static_argnums=0)
    def _sample(self, state: SACState, obs: Array, key: Array) -> Array:
        return self.algorithm.sample(state.actor, obs, key)[0]

    @partial(jax.jit, static_argnums=0)
    def _updated(self, state: SACState, batches: Transition, keys: Array) -> SACState:
        def update(state: SACState, one: Any) -> tuple[SACState, None]:
            batch, key = one
            return self.algorithm.update(state, batch, key), None

        return lax.scan(update, state, (batches, keys))[0]


def _play_episodes(world: GymnasiumWorld, act: Callable[[np.ndarray], Any], key: Array, episodes: int) -> np.ndarray:
    """The return of each of some episodes. One key, the same starts."""
    returns: list[float] = []
    while len(returns) < episodes:
        count = min(_PLAYED_AT_ONCE, episodes - len(returns))
        played = Played(world, count, _seed(key) + len(returns))
        first = np.full(count, np.nan, np.float32)
        while np.isnan(first).any():
            finished = np.asarray(played.step(np.asarray(act(played.obs))).finished_return)
            first = np.where(np.isnan(first), finished, first)  # episodes that follow a short first one do not count
        played.close()
        returns += first.tolist()
    return np.asarray(returns)


def _stacked(steps: Sequence[Transition], stats: NormStats) -> Transition:
    """Transitions in a row, their leaves (T, N, ...), with observations as the policy sees them."""
    stacked: Transition = jax.tree.map(lambda *leaves: np.stack(leaves), *steps)
    return stacked._replace(obs=stats.normalize(stacked.obs), next_obs=stats.normalize(stacked.next_obs))


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
    is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f"
    if is_vector and space.shape[0] and np.isfinite([space.low, space.high]).all() and (space.low < space.high).all():
        return Actions(space.shape[0], tuple(map(float, space.low)), tuple(map(float, space.high)))
    expected = "actions 0, 1, 2 … (Discrete), or a vector of floats with bounds (Box of one axis)"
    raise ConfigError(f"{env_id} acts by {_named(space)}; expected {expected}")


def _named(space: Any) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{type(space).__name__}(…)"


def _seed(key: Array) -> int:
    return int(jax.random.randint(key, (), 0, _MOST_SEED - 1))
