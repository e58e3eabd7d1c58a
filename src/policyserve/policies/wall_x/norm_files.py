"""Where the scales of states and actions are read from."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.log import Log
from policyserve.policies.files import read_json, reading
from policyserve.policies.wall_x.normalizer import Normalizer, Scale
from policyserve.policies.wall_x.train_config import Parts, TrainConfig

log = Log(__name__)

_STATE_KEYS, _ACTION_KEYS = ("state", "observation.state"), ("actions", "action")
_FALLBACK_NAME = "default"  # of a data set that the train config does not name


def load_normalizer(model_path: Path, train_config: TrainConfig, *, mean_std: bool = False) -> Normalizer:
    """Read the scales of a checkpoint: its .pth files, else the JSON file that the train config names.

    mean_std: mean and standard deviation, which only the JSON of one robot has. Raises ConfigError if there are none.
    """
    action, state = model_path / "normalizer_action.pth", model_path / "normalizer_propri.pth"
    if action.is_file() and state.is_file() and not mean_std:
        return Normalizer(_read_pth(action), _read_pth(state))
    named = train_config.norm_stats_path
    if named is None:
        told = "" if mean_std else f"{action.name} and {state.name} in {model_path}, or "
        raise ConfigError(f"no statistics: expected {told}norm_stats_path in {train_config.path}")
    for path in (named, model_path / named.name):
        if path.is_file():
            return read_stats_json(path, train_config, mean_std=mean_std)
    raise ConfigError(f"{train_config.path}: norm_stats_path: {named} does not exist")


def read_stats_json(path: Path, train_config: TrainConfig, *, mean_std: bool = False) -> Normalizer:
    """Read either form of JSON statistics; raises ConfigError naming file and key."""
    content = read_json(path, "statistics as JSON")
    if not isinstance(content, Mapping) or not all(isinstance(part, Mapping) for part in content.values()):
        raise ConfigError(f"{path}: expected statistics as a map of maps")
    if "norm_stats" in content:
        name = train_config.robot or _FALLBACK_NAME
        read = _mean_std if mean_std else _percentiles
        state, action = (_of_robot(content["norm_stats"], keys, path, read) for keys in (_STATE_KEYS, _ACTION_KEYS))
        return Normalizer({name: action}, {name: state})
    if mean_std:
        raise ConfigError(f"{path}: has no mean and standard deviation; choose statistics min_max")
    return _by_part(content, path, train_config)


def _read_pth(path: Path) -> dict[str, Scale]:
    """`min.<data set>` and `delta.<data set>`, each (D,)."""
    tensors = _load_tensors(path)
    # Copies: an array that is a view keeps its tensor, and one freed while the interpreter ends aborts the process.
    with reading(path, "tensors of numbers"):
        values = {str(key): np.array(tensor.detach().float().numpy()) for key, tensor in tensors.items()}
    for key, numbers in values.items():
        _check_finite(numbers, f"{path}: {key}")
    low, width = "min.", "delta."
    names = [key.removeprefix(low) for key in values if key.startswith(low)]
    missing = [name for name in names if width + name not in values]
    if not names or missing:
        raise ConfigError(f"{path}: expected {low}NAME and {width}NAME, got {', '.join(values)[:200] or 'nothing'}")
    return {name: _scale(values[low + name], values[width + name], f"{path}: {name}") for name in names}


def _load_tensors(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("torch", "wall-x") from error
    with reading(path, "torch tensors"):  # weights_only: a pickle that could run code is refused
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ConfigError(f"{path}: expected a map of torch tensors")
    return tensors


def _of_robot(stats: Any, keys: Sequence[str], path: Path, read: Callable[[Any, str], Scale]) -> Scale:
    found = [key for key in keys if key in stats]
    if len(found) != 1:
        raise ConfigError(f"{path}: norm_stats: expected {' or '.join(keys)}, got {', '.join(map(str, stats))[:200]}")
    return read(stats[found[0]], f"{path}: norm_stats: {found[0]}")


def _percentiles(stats: Any, where: str) -> Scale:
    low, high = (_vector(stats, key, where) for key in ("q01", "q99"))
    return _scale(low, high - low if low.shape == high.shape else high, where)


def _mean_std(stats: Any, where: str) -> Scale:
    return _scale(_vector(stats, "mean", where), _vector(stats, "std", where), where, is_mean_std=True)


def _by_part(content: Mapping[str, Any], path: Path, train_config: TrainConfig) -> Normalizer:
    """{robot: {part: {min, delta, …}}}, the parts in the order of dof_config and agent_pos_config."""
    action, state = {}, {}
    for robot, parts in content.items():
        for scales, wanted in ((action, train_config.dof), (state, train_config.agent_pos)):
            if any(part in parts for part, _ in wanted):
                scales[robot] = _joined(parts, wanted, train_config, f"{path}: {robot}")
    if not action:
        wanted = ", ".join(part for part, _ in train_config.dof) or "dof_config to be in the train config"
        raise ConfigError(
            f"{path}: expected robots with {wanted}, got {', '.join(map(str, content))[:200] or 'nothing'}"
        )
    return Normalizer(action, state)


def _joined(parts: Mapping[str, Any], wanted: Parts, train_config: TrainConfig, where: str) -> Scale:
    lows, widths = [], []
    for part, size in wanted:
        if part not in parts:
            log.warning("%s has no statistics of %s: taken for 0 … 1", where, part)
            lows.append(np.zeros(size, np.float32))
            widths.append(np.ones(size, np.float32))
            continue
        low, width = (
            _vector(parts[part], key, f"{where}: {part}") for key in (train_config.min_key, train_config.delta_key)
        )
        if low.size != size:
            raise ConfigError(f"{where}: {part}: expected {size} numbers, got {low.size}")
        lows.append(low)
        widths.append(width)
    return _scale(np.concatenate(lows), np.concatenate(widths), where)


def _vector(stats: Any, key: str, where: str) -> Array:
    there = [name for name, value in stats.items() if value is not None] if isinstance(stats, Mapping) else []
    if key not in there:
        raise ConfigError(f"{where}: {key} is missing, got {', '.join(map(str, there))[:200] or 'nothing'}")
    try:
        with np.errstate(over="ignore"):
            numbers = np.array(stats[key], np.float32).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: {key}: expected numbers, got {reprlib.repr(stats[key])[:60]}") from error
    _check_finite(numbers, f"{where}: {key}")
    return numbers


def _check_finite(numbers: Array, where: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if wrong.size:
        first = int(wrong[0])
        raise ConfigError(f"{where}: expected finite float32 numbers, got {numbers.flat[first]} at {first}")


def _scale(low: Array, width: Array, where: str, *, is_mean_std: bool = False) -> Scale:
    if low.ndim != 1 or low.shape != width.shape:
        raise ConfigError(f"{where}: expected two lists of the same length, got {low.shape} and {width.shape}")
    _check_finite(width, f"{where}: upper bound less the lower")
    if (width < 0).any():
        name = "standard deviations" if is_mean_std else "widths, the upper bound less the lower,"
        raise ConfigError(f"{where}: expected {name} of 0 or more, got {width.min():g} at {int(width.argmin())}")
    return Scale(low, width, is_mean_std)
