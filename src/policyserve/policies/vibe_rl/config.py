"""What a vibe_rl training run was told: the fields of its TrainConfig, and how to read them from a config.json.

For serving only env_id, the algorithm, hidden_sizes, shared_backbone and the action bounds matter; the rest is here so
that config.json and the command lines of the original are understood whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.core.nearest import nearest
from policyserve.policies.files import reading

log = Log(__name__)


@dataclass(frozen=True)
class PPOConfig:
    """PPO; discrete actions only."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Width of each hidden layer, tanh after it."""
    lr: float = 2.5e-4
    max_grad_norm: float = 0.5
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_eps: float = 0.2
    vf_coef: float = 0.5
    ent_coef: float = 0.01
    n_steps: int = 128
    n_minibatches: int = 4
    n_epochs: int = 4
    num_envs: int = 1
    shared_backbone: bool = False
    """Actor and critic share their hidden layers."""


@dataclass(frozen=True)
class DQNConfig:
    """DQN; discrete actions only."""

    hidden_sizes: tuple[int, ...] = (128, 128)
    """Width of each hidden layer, relu after it."""
    lr: float = 1e-3
    gamma: float = 0.99
    batch_size: int = 64
    max_grad_norm: float = 10.0
    target_update_freq: int = 1000
    epsilon_start: float = 1.0
    epsilon_end: float = 0.01
    epsilon_decay_steps: int = 50_000


@dataclass(frozen=True)
class SACConfig:
    """SAC; continuous actions only."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    """Width of each hidden layer, relu after it."""
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    alpha_lr: float = 3e-4
    gamma: float = 0.99
    batch_size: int = 256
    max_grad_norm: float = 10.0
    tau: float = 0.005
    init_alpha: float = 1.0
    autotune_alpha: bool = True
    target_entropy_scale: float = 1.0
    action_low: float = -1.0
    """The action that the network's -1 stands for, in the environment's unit."""
    action_high: float = 1.0
    """The action that the network's +1 stands for, in the environment's unit."""
    log_std_min: float = -20.0
    log_std_max: float = 2.0


AlgoConfig: TypeAlias = PPOConfig | DQNConfig | SACConfig


@dataclass(frozen=True)
class RunnerConfig:
    """How the training ran; no effect on serving."""

    total_timesteps: int = 100_000
    eval_every: int = 5000
    eval_episodes: int = 10
    log_interval: int = 1000
    buffer_size: int = 100_000
    warmup_steps: int = 1000
    num_devices: int | None = None
    num_envs: int = 1
    fsdp_devices: int = 1
    seed: int = 0
    checkpoint_dir: str | None = None
    checkpoint_interval: int = 5000
    max_checkpoints: int = 5
    keep_period: int | None = None
    resume: bool = False
    overwrite: bool = False
    progress_bar: bool = True
    plot: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """One training run: an environment, an algorithm, and how it ran."""

    env_id: str = "CartPole-v1"
    """The environment; it gives the sizes of observation and action."""
    algo: AlgoConfig = field(default_factory=PPOConfig)
    runner: RunnerConfig = field(default_factory=RunnerConfig)
    group: ClassVar[str] = "training"  # --help=training lists its flags


# A run's config.json does not name its algorithm: one field tells each from the others.
_TELLTALES: Mapping[str, type[AlgoConfig]] = {"clip_eps": PPOConfig, "epsilon_start": DQNConfig, "tau": SACConfig}


def load_train_config(path: str | Path) -> TrainConfig:
    """Read a run directory's config.json; raises ConfigError naming file, key, expected and got."""
    return read_train_config(load_json(path), str(path))


def load_json(path: str | Path) -> Any:
    """Parse a JSON file; raises ConfigError if it cannot be read or is not JSON."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    with reading(path, "JSON"):
        return json.loads(text)


def read_train_config(values: object, source: str) -> TrainConfig:
    """Read the parsed content of a config.json; `source` names it in errors. Fields left out have their defaults.

    Keys under `runner` that nobody knows are ignored with a warning. Raises ConfigError naming key, expected and got;
    anywhere else a field that nobody knows is an error, not a guess.
    """
    config, unknown = parse_train_config(values, source)
    tell_unknown(source, unknown)
    return config


def parse_train_config(values: object, source: str) -> tuple[TrainConfig, tuple[str, ...]]:
    """Read what read_train_config reads, raise what it raises, and return the unknown keys under `runner` unwarned."""
    entries = _read_map(values, source, [entry.name for entry in fields(TrainConfig)])
    algo = entries.get("algo")
    algo_class = next((kind for name, kind in _TELLTALES.items() if isinstance(algo, Mapping) and name in algo), None)
    if algo_class is None:
        expected = "a map with clip_eps (PPO), epsilon_start (DQN) or tau (SAC)"
        raise ConfigError(f"{source}: algo: expected {expected}, got {_names(algo)}")
    env_id = entries.get("env_id", TrainConfig.env_id)
    if not isinstance(env_id, str):
        raise ConfigError(f"{source}: env_id: expected a text, got {env_id!r:.60}")
    runner, unknown = _known_to_runner(entries.get("runner", {}))
    config = TrainConfig(
        env_id,
        _read_fields(algo_class, algo, f"{source}: algo"),
        _read_fields(RunnerConfig, runner, f"{source}: runner"),
    )
    return config, unknown


def tell_unknown(source: str, unknown: Sequence[str]) -> None:
    """Warn of keys under `runner` that nobody here knows."""
    if unknown:
        log.warning("%s: runner: ignored, as nothing here knows it: %s", source, ", ".join(unknown)[:200])


def _known_to_runner(values: object) -> tuple[object, tuple[str, ...]]:
    """What RunnerConfig has of a run's `runner`, and the names of the rest, which says nothing about serving."""
    if not isinstance(values, Mapping):
        return values, ()
    known = {entry.name for entry in fields(RunnerConfig)}
    unknown = tuple(str(name) for name in values if name not in known)
    return {name: value for name, value in values.items() if name in known}, unknown


_Config = TypeVar("_Config", bound=AlgoConfig | RunnerConfig)


def _read_fields(kind: type[_Config], values: object, where: str) -> _Config:
    known = {entry.name: str(entry.type) for entry in fields(kind)}
    entries = _read_map(values, where, list(known))
    return kind(**{name: _read_value(known[name], value, f"{where}/{name}") for name, value in entries.items()})


def _read_map(values: object, where: str, known: list[str]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a map, got {values!r:.60}")
    for name in values:
        if name not in known:
            near = nearest(str(name), known)
            hint = f"; did you mean {near}?" if near else ""
            raise ConfigError(f"{where}: expected only {', '.join(known)}, got {name!r}{hint}")
    return values


def _read_value(annotation: str, value: Any, where: str) -> Any:
    description, is_valid = _KINDS[annotation]
    if not is_valid(value):
        raise ConfigError(f"{where}: expected {description}, got {value!r:.60}")
    if annotation == "float":
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_sizes(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_int(size) and size > 0 for size in value)


_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("an integer", _is_int),
    "float": ("a finite number", lambda value: (_is_int(value) or isinstance(value, float)) and abs(value) < 1e300),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "tuple[int, ...]": ("a list of positive integers", _is_sizes),
    "int | None": ("an integer or null", lambda value: value is None or _is_int(value)),
    "str | None": ("a text or null", lambda value: value is None or isinstance(value, str)),
}


def _names(value: object) -> str:
    return ", ".join(map(str, value))[:80] or "an empty map" if isinstance(value, Mapping) else f"{value!r:.60}"
