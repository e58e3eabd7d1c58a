"""Training in environments that are pure functions: whole intervals run as one compiled program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from policyserve.policies.vibe_rl import PPOConfig, SACConfig, TrainConfig

from .envs import Environment, Episode, Transition, begin_episode, play_step
from .norm_stats import NormStats
from .ppo import PPO, PPOState
from .sac import SAC, SACState

_MEASURED_ENVS, _MEASURED_STEPS = 64, 1_000


@dataclass(frozen=True)
class JaxWorld:
    """One of our own environments, as the loop trains in it."""

    facts: Environment

    def observations(self, key: Array) -> np.ndarray:
        """What a random policy sees in 64 environments, 1000 steps each, (n, D)."""
        env = self.facts

        def one_environment(key: Array) -> Array:
            def step(episode: Any, key: Array) -> tuple[Any, Array]:
                action_key, reset_key = jax.random.split(key)
                episode, transition = play_step(env, episode, env.random_action(action_key), reset_key)
                return episode, transition.obs

            begin_key, steps_key = jax.random.split(key)
            keys = jax.random.split(steps_key, _MEASURED_STEPS)
            return lax.scan(step, begin_episode(env, begin_key), keys)[1]

        observations = jax.jit(jax.vmap(one_environment))(jax.random.split(key, _MEASURED_ENVS))
        return np.asarray(observations).reshape(-1, env.observation_size)

    def learner(self, config: TrainConfig, stats: NormStats) -> JaxPPO | JaxSAC:
        # The environment shows what the server will show to the policy.
        env = replace(self.facts, observe=lambda state: stats.normalize(self.facts.observe(state)))
        if isinstance(config.algo, PPOConfig):
            return JaxPPO(env, PPO(env, config.algo))
        assert isinstance(config.algo, SACConfig), "the recipes are PPO's and SAC's"
        return JaxSAC(env, SAC(env, config.algo), config.runner.buffer_size, config.runner.warmup_steps)

    def close(self) -> None:
        """Nothing to let go of."""


class PPOCarry(NamedTuple):
    """What one update hands to the next."""

    state: PPOState
    episodes: Episode  # leaves: (num_envs, ...)


@dataclass(frozen=True)
class JaxPPO:
    """PPO in many copies of one environment."""

    env: Environment
    algorithm: PPO

    @partial(jax.jit, static_argnums=0)
    def start(self, key: Array) -> PPOCarry:
        actor_key, critic_key, episode_key, rng = jax.random.split(key, 4)
        state = self.algorithm.new_state(actor_key, critic_key, rng)
        keys = jax.random.split(episode_key, self.algorithm.config.num_envs)
        return PPOCarry(state, jax.vmap(partial(begin_episode, self.env))(keys))

    @partial(jax.jit, static_argnums=(0, 2))
    def advance(self, carry: PPOCarry, env_steps: int) -> tuple[PPOCarry, Array]:
        """Train for env_steps, a multiple of one rollout. Also returns every step's finished_return, flat."""
        config = self.algorithm.config
        updates = env_steps // (config.n_steps * config.num_envs)
        carry, finished = lax.scan(lambda c, _: self._update(c), carry, length=updates)
        return carry, finished.reshape(-1)

    def evaluate(self, state: PPOState, key: Array, episodes: int) -> np.ndarray:
        """The return of each episode of the deterministic policy, (episodes,). One key, the same starts."""
        return np.asarray(_play_episodes(self.algorithm, self.env, state, jax.random.split(key, episodes)))

    def _update(self, carry: PPOCarry) -> tuple[PPOCarry, Array]:
        rng, improve_key = jax.random.split(carry.state.rng)
        carry = carry._replace(state=replace(carry.state, rng=rng))
        carry, (transitions, log_probs) = lax.scan(
            lambda c, _: self._act_and_step(c), carry, length=self.algorithm.config.n_steps
        )  # (T, N, ...)
        state = self.algorithm.learn(carry.state, transitions, log_probs, improve_key)
        return PPOCarry(state, carry.episodes), transitions.finished_return

    def _act_and_step(self, carry: PPOCarry) -> tuple[PPOCarry, tuple[Transition, Array]]:
        rng, action_key, reset_key = jax.random.split(carry.state.rng, 3)
        obs = jax.vmap(self.env.observe)(carry.episodes.state)  # (N, D)
        actions, log_probs = self.algorithm.sample(carry.state, obs, action_key)
        reset_keys = jax.random.split(reset_key, self.algorithm.config.num_envs)
        episodes, transitions = jax.vmap(partial(play_step, self.env))(carry.episodes, actions, reset_keys)
        return PPOCarry(replace(carry.state, rng=rng), episodes), (transitions, log_probs)


class SACCarry(NamedTuple):
    """What one chunk of environment steps hands to the next."""

    state: SACState
    episode: Episode
    replay: Transition  # leaves: (buffer_size, ...)
    env_steps: Array


@dataclass(frozen=True)
class JaxSAC:
    """Soft actor-critic in one environment."""

    env: Environment
    algorithm: SAC
    buffer_size: int
    warmup_steps: int

    @partial(jax.jit, static_argnums=0)
    def start(self, key: Array) -> SACCarry:
        actor_key, critic_key, episode_key, rng = jax.random.split(key, 4)
        state = self.algorithm.new_state(actor_key, critic_key, rng)
        episode = begin_episode(self.env, episode_key)
        _, example = play_step(self.env, episode, self.env.random_action(rng), rng)
        replay = jax.tree.map(lambda x: jnp.zeros((self.buffer_size, *x.shape), x.dtype), example)
        return SACCarry(state, episode, replay, jnp.int32(0))

    @partial(jax.jit, static_argnums=(0, 2), donate_argnums=1)
    def advance(self, carry: SACCarry, env_steps: int) -> tuple[SACCarry, Array]:
        """Train for env_steps. Also returns every step's finished_return. The carry given is used up."""
        return lax.scan(lambda c, _: self._step(c), carry, length=env_steps)

    def evaluate(self, state: SACState, key: Array, episodes: int) -> np.ndarray:
        """The return of each episode of the deterministic policy, (episodes,). One key, the same starts."""
        return np.asarray(_play_episodes(self.algorithm, self.env, state, jax.random.split(key, episodes)))

    def _step(self, carry: SACCarry) -> tuple[SACCarry, Array]:
        """One environment step (random during warm-up) and, after warm-up, one update."""
        rng, explore_key, act_key, reset_key, rows_key, update_key = jax.random.split(carry.state.rng, 6)
        state = replace(carry.state, rng=rng)
        sampled, _ = self.algorithm.sample(state.actor, self.env.observe(carry.episode.state), act_key)
        action = jnp.where(carry.env_steps < self.warmup_steps, self.env.random_action(explore_key), sampled)
        episode, transition = play_step(self.env, carry.episode, action, reset_key)
        slot = carry.env_steps % self.buffer_size
        replay = jax.tree.map(lambda kept, new: kept.at[slot].set(new), carry.replay, transition)
        env_steps = carry.env_steps + 1
        filled = jnp.minimum(env_steps, self.buffer_size)
        rows = jax.random.randint(rows_key, (self.algorithm.config.batch_size,), 0, filled)
        batch = jax.tree.map(lambda kept: kept[rows], replay)
        state = lax.cond(
            env_steps > self.warmup_steps,
            lambda s: self.algorithm.update(s, batch, update_key),
            lambda s: s,
            state,
        )
        return SACCarry(state, episode, replay, env_steps), transition.finished_return


@partial(jax.jit, static_argnums=(0, 1))
def _play_episodes(algorithm: PPO | SAC, env: Environment, state: Any, keys: Array) -> Array:
    def one_episode(key: Array) -> Array:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            episode, first_return = carry
            episode, transition = play_step(env, episode, algorithm.act(state, env.observe(episode.state)), key)
            # Episodes that follow a short first one do not count.
            return (episode, jnp.where(jnp.isnan(first_return), transition.finished_return, first_return)), None

        start = (begin_episode(env, key), jnp.float32(jnp.nan))
        return lax.scan(step, start, length=env.max_steps)[0][1]

    return jax.vmap(one_episode)(keys)
