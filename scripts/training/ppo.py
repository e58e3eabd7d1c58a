"""Proximal policy optimisation for discrete actions: separate tanh networks for policy and value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from policyserve.policies.vibe_rl import PPOConfig

from .envs import Environment, Episode, Transition, begin_episode, play_step
from .networks import MLP, make_layers
from .optimizer import begin, clipped_adam, descend


class PPOParams(eqx.Module):
    """The policy's network and the value's."""

    actor: MLP
    critic: MLP


class PPOState(eqx.Module):
    """All that state.eqx holds, in its order."""

    params: PPOParams
    opt_state: optax.OptState
    step: Array  # updates, each of n_steps * num_envs environment steps
    rng: Array


class PPOCarry(NamedTuple):
    """What one update hands to the next."""

    state: PPOState
    episodes: Episode  # leaves: (num_envs, ...)


class Sample(NamedTuple):
    """What one environment step teaches."""

    obs: Array
    action: Array
    log_prob: Array
    advantage: Array
    value_target: Array


@dataclass(frozen=True)
class PPO:
    """Proximal policy optimisation of one environment, as the loop drives it."""

    env: Environment
    config: PPOConfig

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return clipped_adam(self.config.lr, self.config.max_grad_norm, eps=1e-5)

    @partial(jax.jit, static_argnums=0)
    def start(self, key: Array) -> PPOCarry:
        actor_key, critic_key, episode_key, rng = jax.random.split(key, 4)
        inside = (self.env.observation_size, *self.config.hidden_sizes)
        params = PPOParams(
            actor=MLP(make_layers((*inside, self.env.action_size), actor_key), jnp.tanh),
            critic=MLP(make_layers((*inside, 1), critic_key), jnp.tanh),
        )
        state = PPOState(params, begin(self.optimizer, params), jnp.int32(0), rng)
        keys = jax.random.split(episode_key, self.config.num_envs)
        return PPOCarry(state, jax.vmap(partial(begin_episode, self.env))(keys))

    @partial(jax.jit, static_argnums=(0, 2))
    def advance(self, carry: PPOCarry, env_steps: int) -> tuple[PPOCarry, Array]:
        """Train for env_steps, a multiple of one rollout. Also returns every step's finished_return, flat."""
        updates = env_steps // (self.config.n_steps * self.config.num_envs)
        carry, finished = lax.scan(lambda c, _: self._update(c), carry, length=updates)
        return carry, finished.reshape(-1)

    def act(self, state: PPOState, obs: Array) -> Array:
        """The served policy: the likeliest action."""
        return jnp.argmax(state.params.actor(obs))

    def _update(self, carry: PPOCarry) -> tuple[PPOCarry, Array]:
        rng, improve_key = jax.random.split(carry.state.rng)
        carry = carry._replace(state=replace(carry.state, rng=rng))
        carry, (transitions, log_probs) = lax.scan(
            lambda c, _: self._act_and_step(c), carry, length=self.config.n_steps
        )  # (T, N, ...)
        advantages, targets = self._advantages(carry.state.params.critic, transitions)
        samples = Sample(transitions.obs, transitions.action, log_probs, advantages, targets)
        samples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)  # (T * N, ...)
        state = self._improve(carry.state, samples, improve_key)
        return PPOCarry(replace(state, step=state.step + 1), carry.episodes), transitions.finished_return

    def _act_and_step(self, carry: PPOCarry) -> tuple[PPOCarry, tuple[Transition, Array]]:
        rng, action_key, reset_key = jax.random.split(carry.state.rng, 3)
        obs = jax.vmap(self.env.observe)(carry.episodes.state)  # (N, D)
        logits = jax.vmap(carry.state.params.actor)(obs)  # (N, A)
        actions = jax.random.categorical(action_key, logits)  # (N,)
        reset_keys = jax.random.split(reset_key, self.config.num_envs)
        episodes, transitions = jax.vmap(partial(play_step, self.env))(carry.episodes, actions, reset_keys)
        return PPOCarry(replace(carry.state, rng=rng), episodes), (transitions, _log_prob(logits, actions))

    def _advantages(self, critic: MLP, transitions: Transition) -> tuple[Array, Array]:
        """Generalised advantage estimation. Returns advantages and value targets, (T, N) each.

        An episode that ran out of time still has a value beyond its last step; one that terminated has none.
        """
        value_of = jax.vmap(jax.vmap(lambda obs: critic(obs)[0]))
        values, next_values = value_of(transitions.obs), value_of(transitions.next_obs)
        next_values = jnp.where(transitions.terminated, 0.0, next_values)
        errors = transitions.reward + self.config.gamma * next_values - values
        decay = self.config.gamma * self.config.gae_lambda * (1.0 - transitions.ended)

        def backward(later: Array, at_t: tuple[Array, Array]) -> tuple[Array, Array]:
            error, keep = at_t
            advantage = error + keep * later
            return advantage, advantage

        _, advantages = lax.scan(backward, jnp.zeros_like(errors[0]), (errors, decay), reverse=True)
        return advantages, advantages + values

    def _improve(self, state: PPOState, samples: Sample, key: Array) -> PPOState:
        """Go n_epochs times over the samples, in shuffled minibatches."""
        count = samples.advantage.shape[0]

        def minibatch(state: PPOState, rows: Array) -> tuple[PPOState, None]:
            return self._descend(state, jax.tree.map(lambda x: x[rows], samples)), None

        def epoch(state: PPOState, epoch_key: Array) -> tuple[PPOState, None]:
            order = jax.random.permutation(epoch_key, count)
            return lax.scan(minibatch, state, order.reshape(self.config.n_minibatches, -1))

        return lax.scan(epoch, state, jax.random.split(key, self.config.n_epochs))[0]

    def _descend(self, state: PPOState, batch: Sample) -> PPOState:
        gradient = jax.grad(self._loss)(state.params, batch)
        params, opt_state = descend(self.optimizer, state.params, gradient, state.opt_state)
        return replace(state, params=params, opt_state=opt_state)

    def _loss(self, params: PPOParams, batch: Sample) -> Array:
        logits = jax.vmap(params.actor)(batch.obs)  # (B, A)
        values = jax.vmap(params.critic)(batch.obs)[:, 0]  # (B,)
        advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
        ratio = jnp.exp(_log_prob(logits, batch.action) - batch.log_prob)
        clipped = jnp.clip(ratio, 1.0 - self.config.clip_eps, 1.0 + self.config.clip_eps)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        value_loss = 0.5 * jnp.square(values - batch.value_target).mean()
        log_probs = jax.nn.log_softmax(logits)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1).mean()
        return policy_loss + self.config.vf_coef * value_loss - self.config.ent_coef * entropy


def _log_prob(logits: Array, actions: Array) -> Array:
    """logits: (B, A), actions: (B,) integers. Returns (B,)."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], axis=-1)[:, 0]
