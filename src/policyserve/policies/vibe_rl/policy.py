"""From a training run's config and checkpoint to a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.policies.mlp import limit_blas_threads
from policyserve.policies.stacked import StackedPolicy, powers_of_two
from policyserve.policies.vibe_rl.checkpoint import find_checkpoint, read_network
from policyserve.policies.vibe_rl.config import SACConfig, TrainConfig
from policyserve.policies.vibe_rl.environments import Environment
from policyserve.policies.vibe_rl.jax_backend import jax_forward
from policyserve.policies.vibe_rl.networks import ActingNetwork, numpy_forward
from policyserve.policies.vibe_rl.norm_stats import check_size, find_norm_stats
from policyserve.policies.vibe_rl.presets import algorithm_of, name_of
from policyserve.policies.vibe_rl.run_config import choose_config, environment_of
from policyserve.transforms import (
    ComposeTransforms,
    NormalizeInput,
    NormStats,
    RescaleOutput,
    Transform,
    UnnormalizeOutput,
    identity,
)

log = Log(__name__)

Backend = Literal["numpy", "jax"]


def create_trained_policy(
    config: TrainConfig | None,
    checkpoint_dir: str | Path,
    *,
    step: int | None = None,
    norm_stats_path: str | Path | None = None,
    obs_norm_key: str = "obs",
    action_norm_key: str = "action",
    backend: Backend = "numpy",
    rescale_actions: bool = True,
    max_batch: int = 64,
    max_client_batch: int = 16_384,
) -> StackedPolicy:
    """Load a checkpoint of PPO, DQN or SAC; it always answers the most likely action, never a random one.

    The policy takes {"obs": (obs_dim,) float32} and answers int32 () for PPO and DQN, float32 (action_dim,) for SAC, in
    the environment's unit. config: None takes the run's own config.json, which is looked for in checkpoint_dir and in
    its parent; a config that is given goes before that file, with a warning where the two differ. step: None is the
    latest. norm_stats_path: None looks in checkpoint_dir, then in its parent. rescale_actions: False leaves SAC's
    actions in -1 … 1. backend: "numpy" or "jax".
    Raises ConfigError for whatever does not fit together, MissingDependency for an extra that is not installed.
    """
    config = choose_config(config, checkpoint_dir)
    environment = environment_of(config, checkpoint_dir)
    algorithm = algorithm_of(config)
    _check_actions_fit(algorithm, environment, config.env_id)
    if backend not in ("numpy", "jax"):
        raise ConfigError(f"backend: expected numpy or jax, got {backend!r}")
    _check_at_least("max_batch", max_batch, 1)
    _check_at_least("max_client_batch", max_client_batch, 0)
    checkpoint = find_checkpoint(checkpoint_dir, step)
    outputs = environment.action_count or environment.action_size or 1
    sizes = (environment.observation_size, *config.algo.hidden_sizes, outputs)
    layers = read_network(checkpoint, sizes, algorithm)
    log.info("checkpoint %s (%s)", checkpoint.path, algorithm)
    stats = find_norm_stats(checkpoint_dir, norm_stats_path, (obs_norm_key, action_norm_key))
    network = ActingNetwork(
        layers,
        hidden="tanh" if algorithm == "PPO" else "relu",
        is_discrete=environment.action_count is not None,
        input_transform=_input_transform(stats, obs_norm_key, sizes[0]),
        output_transform=_output_transform(config, stats, action_norm_key, outputs, rescale_actions),
    )
    spec = PolicySpec(
        name_of(config),
        observation={"obs": ArraySpec((sizes[0],), "float32", environment.observation_doc)},
        action=_action_spec(environment, config, rescale_actions, action_norm_key in stats),
        max_batch=max_batch,
        max_client_batch=max_client_batch,
        metadata={
            "preset": name_of(config),
            "env_id": config.env_id,
            "algorithm": algorithm,
            "checkpoint_step": checkpoint.step,
            "backend": backend,
        },
        dialect="vibe_rl",
        inline=backend == "numpy",  # some 10 µs a call, a hop to a thread and back takes 60
    )
    return _stacked(network, spec, backend)


def _stacked(network: ActingNetwork, spec: PolicySpec, backend: Backend) -> StackedPolicy:
    if backend == "jax":
        forward, buckets = jax_forward(network), powers_of_two(spec.max_batch)
    else:
        limit_blas_threads()
        forward, buckets = numpy_forward(network), None
    return StackedPolicy(lambda observations: forward(observations["obs"]), spec, buckets=buckets)


def _check_actions_fit(algorithm: str, environment: Environment, env_id: str) -> None:
    if algorithm == "SAC" and environment.action_size is None:
        raise ConfigError(f"SAC is for continuous actions, and those of {env_id} are discrete: use PPO or DQN")
    if algorithm != "SAC" and environment.action_count is None:
        raise ConfigError(
            f"{algorithm} is for discrete actions only here, and those of {env_id} are continuous: use pendulum_sac"
        )


def _check_at_least(name: str, value: int, bound: int) -> None:
    if value < bound:
        raise ConfigError(f"{name}: expected at least {bound}, got {value}")


def _action_spec(environment: Environment, config: TrainConfig, rescale: bool, has_stats: bool) -> ArraySpec:
    if environment.action_size is None:
        return ArraySpec((), "int32", environment.action_doc)
    low, high = _bounds(config) if rescale else (-1.0, 1.0)
    if has_stats:  # each number has a scale of its own
        return ArraySpec((environment.action_size,), "float32", environment.action_doc)
    return ArraySpec((environment.action_size,), "float32", f"{environment.action_doc}; trained for {low:g} … {high:g}")


def _bounds(config: TrainConfig) -> tuple[float, float]:
    assert isinstance(config.algo, SACConfig)
    low, high = config.algo.action_low, config.algo.action_high
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"action_low, action_high: expected finite numbers, low < high, got {low} and {high}")
    return low, high


def _input_transform(stats: Mapping[str, NormStats], key: str, size: int) -> Transform:
    if key not in stats:
        return identity
    check_size(stats[key], key, size)
    return NormalizeInput(stats[key].mean, stats[key].std)


def _output_transform(
    config: TrainConfig, stats: Mapping[str, NormStats], key: str, size: int, rescale: bool
) -> Transform:
    if not isinstance(config.algo, SACConfig):
        if key in stats:
            log.info("norm stats of %r are not used: an index of a discrete action has no scale", key)
        return identity
    transforms: list[Transform] = []
    if rescale and _bounds(config) != (-1.0, 1.0):
        transforms.append(RescaleOutput(*_bounds(config)))
    if key in stats:
        check_size(stats[key], key, size)
        transforms.append(UnnormalizeOutput(stats[key].mean, stats[key].std))
    return ComposeTransforms(tuple(transforms)) if transforms else identity
