"""Transforms one after another, and on one entry of an observation.

A transform is any function of an observation or of actions. Those in this package compute with operators and the
values' own methods, so that NumPy arrays and JAX's tracers both pass through them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Transform: TypeAlias = Callable[[Any], Any]

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class ComposeTransforms:
    """The transforms in order, as one."""

    transforms: Sequence[Transform]

    def __call__(self, value: Any) -> Any:
        for transform in self.transforms:
            value = transform(value)
        return value


def identity(value: Any) -> Any:
    """Return the value as it is."""
    return value


def at_key(key: str | None, transform: Transform, observation: Any) -> Any:
    """Transform one entry of a map, or the whole of what is no map; the map given stays as it was.

    Raises KeyError if the map has no such entry.
    """
    if key is None or not isinstance(observation, Mapping):
        return transform(observation)
    return {**observation, key: transform(observation[key])}


def as_float32(value: Any) -> Any:
    """Cast an array, a tracer or plain numbers to float32."""
    if getattr(value, "dtype", None) is _FLOAT32:  # identity is what a small network's time allows
        return value
    return value.astype(np.float32) if hasattr(value, "astype") else np.asarray(value, np.float32)
