"""Training in Gymnasium's environments: they are played step by step, and only learning is compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from policyserve.policies.vibe_rl import PPOConfig, SACConfig, TrainConfig

from .envs import EnvFacts, Transition
from .gymnasium_envs import Actions, Played, look_at, play_episodes, stacked
from .norm_stats import NormStats
from .ppo import PPO, PPOState
from .sac import SAC, SACState

_MEASURED_ENVS, _MEASURED_STEPS = 4, 2_000
_UPDATES_AT_ONCE = 16  # of SAC: a compiled call costs as much as several of them
_MOST_SEED = 2**31


def open_world(env_id: str) -> GymnasiumWorld:
    """Look at an environment; raises ConfigError that says why a policy cannot be trained there."""
    return GymnasiumWorld(*look_at(env_id))


@dataclass(frozen=True)
class GymnasiumWorld:
    """One of Gymnasium's environments, as the loop trains in it."""

    facts: EnvFacts
    actions: Actions

    def observations(self, key: Array) -> np.ndarray:
        """What a random policy sees in 4 environments, 2000 steps each, (n, D)."""
        random = np.random.default_rng(_seed(key))
        played = self.play(_MEASURED_ENVS, key)
        rows = [played.step(self.actions.random(random, _MEASURED_ENVS)).obs for _ in range(_MEASURED_STEPS)]
        played.close()
        return np.concatenate(rows)

    def learner(self, config: TrainConfig, stats: NormStats) -> GymnasiumPPO | GymnasiumSAC:
        if isinstance(config.algo, PPOConfig):
            return GymnasiumPPO(self, stats, PPO(self.facts, config.algo))
        assert isinstance(config.algo, SACConfig), "the recipes are PPO's and SAC's"
        runner = config.runner
        return GymnasiumSAC(self, stats, SAC(self.facts, config.algo), runner.buffer_size, runner.warmup_steps)

    def play(self, copies: int, key: Array, discount: float | None = None) -> Played:
        """Begin an episode in some copies of the environment."""
        return Played(self.facts.env_id, self.actions, copies, _seed(key), discount)

    def evaluate(self, act: Callable[[np.ndarray], Any], key: Array, episodes: int) -> np.ndarray:
        """The return of each episode of a policy, (episodes,). One key, the same starts."""
        return play_episodes(self.facts.env_id, self.actions, act, _seed(key), episodes)


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
        played = self.world.play(config.num_envs, episode_key, discount=config.gamma)
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
        return self.world.evaluate(lambda obs: self._act(state, self.stats.normalize(obs)), key, episodes)

    def _update(self, carry: PPOCarry) -> tuple[PPOCarry, np.ndarray]:
        rng, improve_key, sample_key = jax.random.split(carry.state.rng, 3)
        state, steps, log_probs = replace(carry.state, rng=rng), [], []
        for key in jax.random.split(sample_key, self.algorithm.config.n_steps):
            actions, log_prob = self._sample(state, self.stats.normalize(carry.played.obs), key)
            steps.append(carry.played.step(np.asarray(actions)))
            log_probs.append(log_prob)
        transitions = stacked(steps, self.stats)
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
        state = self.algorithm.new_state(actor_key, critic_key, rng)
        return SACCarry(state, self.world.play(1, episode_key), np.random.default_rng(_seed(episode_key)))

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
        return self.world.evaluate(lambda obs: self._act(state, self.stats.normalize(obs)), key, episodes)

    def _step(self, carry: SACCarry) -> None:
        rng, key = jax.random.split(carry.state.rng)
        carry.state = replace(carry.state, rng=rng)
        if carry.env_steps < self.warmup_steps:
            action = self.world.actions.random(carry.random, 1)
        else:
            action = np.asarray(self._sample(carry.state, self.stats.normalize(carry.played.obs[0]), key))[None]
        transition = stacked([carry.played.step(action)], self.stats)
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


def _seed(key: Array) -> int:
    return int(jax.random.randint(key, (), 0, _MOST_SEED - 1))
