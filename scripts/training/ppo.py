"""Proximal policy optimisation for discrete actions: separate tanh networks for policy and value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from policyserve.policies.vibe_rl import PPOConfig

from .envs import EnvFacts, Transition
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


class Sample(NamedTuple):
    """What one environment step teaches."""

    obs: Array
    action: Array
    log_prob: Array
    advantage: Array
    value_target: Array


@dataclass(frozen=True)
class PPO:
    """What it learns from transitions, whoever plays them."""

    facts: EnvFacts
    config: PPOConfig

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return clipped_adam(self.config.lr, self.config.max_grad_norm, eps=1e-5)

    def new_state(self, actor_key: Array, critic_key: Array, rng: Array) -> PPOState:
        """Return networks that know nothing. rng: what training draws from later."""
        inside = (self.facts.observation_size, *self.config.hidden_sizes)
        params = PPOParams(
            actor=MLP(make_layers((*inside, self.facts.action_size), actor_key), jnp.tanh),
            critic=MLP(make_layers((*inside, 1), critic_key), jnp.tanh),
        )
        return PPOState(params, begin(self.optimizer, params), jnp.int32(0), rng)

    def sample(self, state: PPOState, obs: Array, key: Array) -> tuple[Array, Array]:
        """Draw actions for obs, (N, D). Returns them and their log probabilities, (N,) each."""
        logits = jax.vmap(state.params.actor)(obs)  # (N, A)
        actions = jax.random.categorical(key, logits)
        return actions, _log_prob(logits, actions)

    def act(self, state: PPOState, obs: Array) -> Array:
        """The served policy: the likeliest action."""
        return jnp.argmax(state.params.actor(obs))

    def learn(self, state: PPOState, transitions: Transition, log_probs: Array, key: Array) -> PPOState:
        """Do one update. The leaves of transitions, and log_probs, are (T, N, ...)."""
        advantages, targets = self._advantages(state.params.critic, transitions)
        samples = Sample(transitions.obs, transitions.action, log_probs, advantages, targets)
        samples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)  # (T * N, ...)
        state = self._improve(state, samples, key)
        return replace(state, step=state.step + 1)

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
