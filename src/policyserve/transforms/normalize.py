"""Z-scores in, physical units out, and the norm_stats.json that says with which numbers.

{"obs": {"mean": […], "std": […], "q01": […], "q99": […]}, "action": {…}}: numbers or flat lists of them, float32 once
read; q01 and q99 may be missing or null. openpi writes the same inside {"norm_stats": …}. A std below eps counts as
eps, so that a feature that never varies does not blow up; a negative one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.transforms.compose import as_float32, at_key

_NEEDED = ("mean", "std")


@dataclass(frozen=True, eq=False)
class NormStats:
    """One key's statistics, each float32 of shape (D,), or () for all features alike.

    q01, q99: percentiles; None where the file has none.
    """

    mean: Array
    std: Array
    q01: Array | None = None
    q99: Array | None = None


def read_norm_stats(values: object, source: str) -> dict[str, NormStats]:
    """Read the parsed content of a norm_stats.json; `source` names the file in errors.

    openpi's wrapper is taken off, so that its keys are those inside: `state`, `actions`. Raises ConfigError naming key,
    expected and got.
    """
    if is_openpi(values):
        values, source = values["norm_stats"], f"{source}: norm_stats"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected a map from keys to statistics, got {type(values).__name__}")
    return {str(key): _read_entry(entry, f"{source}: {key}") for key, entry in values.items()}


def is_openpi(values: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether the statistics lie inside openpi's wrapper, {"norm_stats": {key: …}}."""
    return isinstance(values, Mapping) and isinstance(values.get("norm_stats"), Mapping) and len(values) == 1


def _read_entry(entry: object, where: str) -> NormStats:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected a map with {', '.join(_NEEDED)}, got {type(entry).__name__}")
    there = [name for name, value in entry.items() if value is not None]
    missing = [name for name in _NEEDED if name not in there]
    if missing:
        got = ", ".join(map(str, there)) or "none of them"
        raise ConfigError(f"{where}: expected {', '.join(_NEEDED)}, got {got}: {', '.join(missing)} missing")
    known = [field.name for field in fields(NormStats) if field.name in there]
    stats = NormStats(**{name: _read_numbers(entry[name], f"{where}/{name}") for name in known})
    if (stats.std < 0).any():
        raise ConfigError(f"{where}/std: expected 0 or more, got {entry['std']!r:.60}")
    return stats


def _read_numbers(value: object, where: str) -> Array:
    numbers: list[Any] = value if isinstance(value, list) else [value]
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
        raise ConfigError(f"{where}: expected a number or a flat list of numbers, got {value!r:.60}")
    with np.errstate(over="ignore"):
        # An int of hundreds of digits is valid JSON, and no float holds it.
        array = np.asarray([number if abs(number) < 1e300 else np.inf for number in numbers], np.float32)
    wrong = np.flatnonzero(~np.isfinite(array))
    if wrong.size:
        got = f"{numbers[wrong[0]]!r:.60}" + (f" at {wrong[0]}" if isinstance(value, list) else "")
        raise ConfigError(f"{where}: expected finite float32 numbers, got {got}")
    return array if isinstance(value, list) else array.reshape(())


@dataclass(frozen=True, eq=False)
class NormalizeInput:
    """(x - mean) / max(std, eps) in float32, of the whole observation, or of one entry where it is a map.

    x: (..., D). mean, std: (D,) or (). Raises ConfigError if they are not finite, or std is negative.
    """

    mean: Any
    std: Any
    key: str | None = None
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self.mean, self.std)

    def __call__(self, observation: Any) -> Any:
        return at_key(self.key, self._normalize, observation)

    def _normalize(self, value: Any) -> Any:
        mean, scale = self.mean_and_scale
        return (as_float32(value) - mean) / scale

    @cached_property
    def mean_and_scale(self) -> tuple[Array, Array]:
        """What is subtracted, and by what is divided then: float32."""
        return _mean_and_scale(self.mean, self.std, self.eps)


@dataclass(frozen=True, eq=False)
class UnnormalizeOutput:
    """action * max(std, eps) + mean in float32.

    action: (..., D). mean, std: (D,) or (). Raises ConfigError if they are not finite, or std is negative.
    """

    mean: Any
    std: Any
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self.mean, self.std)

    def __call__(self, action: Any) -> Any:
        mean, scale = self._numbers
        return as_float32(action) * scale + mean

    @cached_property
    def _numbers(self) -> tuple[Array, Array]:
        return _mean_and_scale(self.mean, self.std, self.eps)


@dataclass(frozen=True)
class RescaleOutput:
    """Stretch -1 … 1 to low … high: low + (action + 1) / 2 * (high - low), in float32."""

    low: float
    high: float

    def __call__(self, action: Any) -> Any:
        return (as_float32(action) + 1.0) * (0.5 * (self.high - self.low)) + self.low


def _check(mean: Any, std: Any) -> None:
    with np.errstate(over="ignore"):
        numbers = {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            raise ConfigError(f"{name}: expected finite float32 numbers, got {values[~np.isfinite(values)].flat[0]}")
    if (numbers["std"] < 0).any():
        raise ConfigError(f"std: expected 0 or more, got {numbers['std'].min()}")


def _mean_and_scale(mean: Any, std: Any, eps: float) -> tuple[Array, Array]:
    return np.asarray(mean, np.float32), np.maximum(np.asarray(std, np.float32), np.float32(eps))
