"""Soft actor-critic: a squashed Gaussian actor, twin critics, a tuned temperature; one update per step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from policyserve.policies.vibe_rl import SACConfig

from .envs import EnvFacts, Transition
from .networks import GaussianActor, TwinCritic, make_gaussian_actor, make_twin_critic
from .optimizer import begin, clipped_adam, descend


class SACState(eqx.Module):
    """All that state.eqx holds, in its order."""

    actor: GaussianActor
    critic: TwinCritic
    target_critic: TwinCritic
    actor_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    log_alpha: Array
    alpha_opt_state: optax.OptState
    step: Array  # gradient steps
    rng: Array


@dataclass(frozen=True)
class SAC:
    """What it learns from transitions, whoever plays them."""

    facts: EnvFacts
    config: SACConfig

    @property
    def actor_optimizer(self) -> optax.GradientTransformation:
        return clipped_adam(self.config.actor_lr, self.config.max_grad_norm)

    @property
    def critic_optimizer(self) -> optax.GradientTransformation:
        return clipped_adam(self.config.critic_lr, self.config.max_grad_norm)

    @property
    def alpha_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.config.alpha_lr)

    def new_state(self, actor_key: Array, critic_key: Array, rng: Array) -> SACState:
        """Return networks that know nothing. rng: what training draws from later."""
        sizes = (self.facts.observation_size, self.config.hidden_sizes, self.facts.action_size)
        actor, critic = make_gaussian_actor(*sizes, actor_key), make_twin_critic(*sizes, critic_key)
        log_alpha = jnp.log(jnp.float32(self.config.init_alpha))
        return SACState(
            actor=actor,
            critic=critic,
            target_critic=critic,
            actor_opt_state=begin(self.actor_optimizer, actor),
            critic_opt_state=begin(self.critic_optimizer, critic),
            log_alpha=log_alpha,
            alpha_opt_state=begin(self.alpha_optimizer, log_alpha),
            step=jnp.int32(0),
            rng=rng,
        )

    def act(self, state: SACState, obs: Array) -> Array:
        """The served policy: the mean action, in the environment's units."""
        return self._to_env_units(jnp.tanh(state.actor(obs)[0]))

    def update(self, state: SACState, batch: Transition, key: Array) -> SACState:
        """One gradient step each for critics, actor and temperature; batch leaves: (B, ...)."""
        target_key, actor_key = jax.random.split(key)
        alpha = jnp.exp(state.log_alpha)

        targets = self._critic_targets(state, batch, alpha, target_key)
        gradient = jax.grad(_critic_loss)(state.critic, batch, targets)
        critic, critic_opt_state = descend(self.critic_optimizer, state.critic, gradient, state.critic_opt_state)

        gradient, log_probs = jax.grad(self._actor_loss, has_aux=True)(state.actor, critic, batch.obs, alpha, actor_key)
        actor, actor_opt_state = descend(self.actor_optimizer, state.actor, gradient, state.actor_opt_state)

        log_alpha, alpha_opt_state = self._tune_temperature(state, log_probs)
        return replace(
            state,
            actor=actor,
            critic=critic,
            target_critic=jax.tree.map(self._follow, state.target_critic, critic),
            actor_opt_state=actor_opt_state,
            critic_opt_state=critic_opt_state,
            log_alpha=log_alpha,
            alpha_opt_state=alpha_opt_state,
            step=state.step + 1,
        )

    def _critic_targets(self, state: SACState, batch: Transition, alpha: Array, key: Array) -> Array:
        keys = jax.random.split(key, self.config.batch_size)
        actions, log_probs = jax.vmap(partial(self.sample, state.actor))(batch.next_obs, keys)
        q1, q2 = jax.vmap(state.target_critic)(batch.next_obs, actions)
        soft_value = jnp.minimum(q1, q2) - alpha * log_probs
        return batch.reward + self.config.gamma * jnp.where(batch.terminated, 0.0, soft_value)

    def _actor_loss(
        self, actor: GaussianActor, critic: TwinCritic, obs: Array, alpha: Array, key: Array
    ) -> tuple[Array, Array]:
        keys = jax.random.split(key, self.config.batch_size)
        actions, log_probs = jax.vmap(partial(self.sample, actor))(obs, keys)
        q1, q2 = jax.vmap(critic)(obs, actions)
        return (alpha * log_probs - jnp.minimum(q1, q2)).mean(), log_probs

    def _tune_temperature(self, state: SACState, log_probs: Array) -> tuple[Array, optax.OptState]:
        """Move alpha so that the actor keeps an entropy of -target_entropy_scale per action number."""
        if not self.config.autotune_alpha:
            return state.log_alpha, state.alpha_opt_state
        target_entropy = -self.config.target_entropy_scale * self.facts.action_size
        gradient = -(log_probs + target_entropy).mean()  # of -log_alpha * (log_prob + target)
        return descend(self.alpha_optimizer, state.log_alpha, gradient, state.alpha_opt_state)

    def _follow(self, slow: Array, fast: Array) -> Array:
        return (1.0 - self.config.tau) * slow + self.config.tau * fast

    def sample(self, actor: GaussianActor, obs: Array, key: Array) -> tuple[Array, Array]:
        """Draw an action in the environment's units, (A,), and its log density, ()."""
        mean, log_std = actor(obs)
        log_std = jnp.clip(log_std, self.config.log_std_min, self.config.log_std_max)
        noise = jax.random.normal(key, mean.shape)
        raw = mean + jnp.exp(log_std) * noise
        log_normal = -0.5 * (noise**2 + jnp.log(2 * jnp.pi)) - log_std
        # log(1 - tanh(raw)²), written so that it neither under- nor overflows far from zero.
        log_squash = 2.0 * (jnp.log(2.0) - raw - jax.nn.softplus(-2.0 * raw))
        log_scale = jnp.log(0.5 * (self.config.action_high - self.config.action_low))
        return self._to_env_units(jnp.tanh(raw)), jnp.sum(log_normal - log_squash - log_scale)

    def _to_env_units(self, unit_action: Array) -> Array:
        """unit_action: within ±1."""
        low, high = self.config.action_low, self.config.action_high
        return low + 0.5 * (unit_action + 1.0) * (high - low)


def _critic_loss(critic: TwinCritic, batch: Transition, targets: Array) -> Array:
    q1, q2 = jax.vmap(critic)(batch.obs, batch.action)
    return 0.5 * (jnp.square(q1 - targets) + jnp.square(q2 - targets)).mean()
