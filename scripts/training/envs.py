"""CartPole-v1 and Pendulum-v1 as pure functions of one state, step for step what Gymnasium computes.

Everything here is about one environment and is made for jit, scan and vmap; float32 throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class EnvFacts:
    """What the algorithms and the files of a run have to know of an environment."""

    env_id: str
    observation_size: int
    action_size: int  # discrete: how many actions; continuous: how many numbers
    solved_return: float | None  # None: nobody says


@dataclass(frozen=True)
class Environment(EnvFacts):
    """The physics of a task. A state is an array; how many steps it is old is Episode's business."""

    max_steps: int
    reset: Callable[[Array], Array]  # key -> state
    observe: Callable[[Array], Array]  # state -> (observation_size,)
    step: Callable[[Array, Array], tuple[Array, Array, Array]]  # state, action -> state, reward, terminated
    random_action: Callable[[Array], Array]  # key -> action


def _cartpole_step(state: Array, action: Array) -> tuple[Array, Array, Array]:
    """state: (4,) x, x_dot, theta, theta_dot in metres and radians. action: 0 pushes left, 1 right."""
    gravity, pole_mass, total_mass, half_length, force_size, dt = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
    _, x_dot, theta, theta_dot = state
    force = jnp.where(action == 1, force_size, -force_size)
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    push = (force + pole_mass * half_length * theta_dot**2 * sin) / total_mass
    theta_acc = (gravity * sin - cos * push) / (half_length * (4.0 / 3.0 - pole_mass * cos**2 / total_mass))
    x_acc = push - pole_mass * half_length * theta_acc * cos / total_mass
    # Explicit Euler: positions move with the old velocities.
    state = state + dt * jnp.stack([x_dot, x_acc, theta_dot, theta_acc])
    terminated = (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 12 * 2 * jnp.pi / 360)
    return state, jnp.float32(1.0), terminated


def _pendulum_step(state: Array, action: Array) -> tuple[Array, Array, Array]:
    """state: (2,) angle from upright in rad, rad/s. action: (1,) torque in N m, cut to ±2."""
    gravity, mass, length, dt = 10.0, 1.0, 1.0, 0.05
    theta, theta_dot = state
    torque = jnp.clip(action[0], -2.0, 2.0)
    angle = (theta + jnp.pi) % (2 * jnp.pi) - jnp.pi
    reward = -(angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2)
    theta_acc = 3 * gravity / (2 * length) * jnp.sin(theta) + 3.0 / (mass * length**2) * torque
    theta_dot = jnp.clip(theta_dot + theta_acc * dt, -8.0, 8.0)
    return jnp.stack([theta + theta_dot * dt, theta_dot]), reward, jnp.bool_(False)


CARTPOLE = Environment(
    env_id="CartPole-v1",
    observation_size=4,
    action_size=2,
    max_steps=500,
    solved_return=475.0,
    reset=lambda key: jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05),
    observe=lambda state: state,
    step=_cartpole_step,
    random_action=lambda key: jax.random.randint(key, (), 0, 2),
)

PENDULUM = Environment(
    env_id="Pendulum-v1",
    observation_size=3,
    action_size=1,
    max_steps=200,
    solved_return=-200.0,
    reset=lambda key: jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0]),
    observe=lambda state: jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]]),
    step=_pendulum_step,
    random_action=lambda key: jax.random.uniform(key, (1,), minval=-2.0, maxval=2.0),
)

ENVIRONMENTS = {env.env_id: env for env in (CARTPOLE, PENDULUM)}


class Episode(NamedTuple):
    """An environment in the middle of an episode."""

    state: Array
    steps: Array
    return_so_far: Array


class Transition(NamedTuple):
    """One step. next_obs belongs to the same episode, also where the step ended it."""

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: Array  # the task ended: no value beyond it
    ended: Array  # terminated or out of time
    finished_return: Array  # the episode's return where it ended, NaN elsewhere


def begin_episode(env: Environment, key: Array) -> Episode:
    return Episode(env.reset(key), jnp.int32(0), jnp.float32(0.0))


def play_step(env: Environment, episode: Episode, action: Array, key: Array) -> tuple[Episode, Transition]:
    """Take one step and, where it ends the episode, begin the next one with key."""
    state, reward, terminated = env.step(episode.state, action)
    played = Episode(state, episode.steps + 1, episode.return_so_far + reward)
    ended = terminated | (played.steps >= env.max_steps)
    transition = Transition(
        obs=env.observe(episode.state),
        action=action,
        reward=reward,
        next_obs=env.observe(state),
        terminated=terminated,
        ended=ended,
        finished_return=jnp.where(ended, played.return_so_far, jnp.nan),
    )
    fresh = begin_episode(env, key)
    following = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, played)
    return following, transition
