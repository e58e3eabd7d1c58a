"""The networks of both algorithms; the order of their fields is the order of their records in state.eqx."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array


class MLP(eqx.Module):
    """Linear layers with an activation between them and none at the end."""

    layers: tuple[eqx.nn.Linear, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class GaussianActor(eqx.Module):
    """SAC's actor: relu layers, then the mean and the log standard deviation of the action before tanh."""

    layers: tuple[eqx.nn.Linear, ...]
    mean_head: eqx.nn.Linear
    log_std_head: eqx.nn.Linear

    def __call__(self, x: Array) -> tuple[Array, Array]:
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return self.mean_head(x), self.log_std_head(x)


class TwinCritic(eqx.Module):
    """Two independent estimates of Q(observation, action)."""

    q1: MLP
    q2: MLP

    def __call__(self, obs: Array, action: Array) -> tuple[Array, Array]:
        x = jnp.concatenate([obs, action])  # (D + A,)
        return self.q1(x)[0], self.q2(x)[0]


def make_layers(sizes: tuple[int, ...], key: Array) -> tuple[eqx.nn.Linear, ...]:
    """Return a linear layer between each two neighbours of sizes."""
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(eqx.nn.Linear(n_in, n_out, key=k) for n_in, n_out, k in zip(sizes, sizes[1:], keys, strict=False))


def make_gaussian_actor(obs_size: int, hidden_sizes: tuple[int, ...], action_size: int, key: Array) -> GaussianActor:
    layers_key, mean_key, log_std_key = jax.random.split(key, 3)
    return GaussianActor(
        layers=make_layers((obs_size, *hidden_sizes), layers_key),
        mean_head=eqx.nn.Linear(hidden_sizes[-1], action_size, key=mean_key),
        log_std_head=eqx.nn.Linear(hidden_sizes[-1], action_size, key=log_std_key),
    )


def make_twin_critic(obs_size: int, hidden_sizes: tuple[int, ...], action_size: int, key: Array) -> TwinCritic:
    sizes = (obs_size + action_size, *hidden_sizes, 1)
    q1, q2 = (MLP(make_layers(sizes, k), jax.nn.relu) for k in jax.random.split(key))
    return TwinCritic(q1, q2)
