"""From a network's last layer to the action that Stable-Baselines3's predict(deterministic=True) gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.spec import ArraySpec
from policyserve.policies.sb3.spaces import Box, Discrete, Leaf, MultiBinary, MultiDiscrete

Head: TypeAlias = Callable[[Array], Array]  # (K,) or (N, K) float32 -> (N, *action)


def outputs_of(space: Leaf) -> int:
    """How many numbers the last layer has for it."""
    return space.width


def head_of(space: Leaf, is_squashed: bool, clip: float | None = None) -> Head:
    """What the last layer's numbers mean.

    is_squashed: of a bounded Box, whether they go through tanh and are rescaled to the bounds; else they are clipped.
    clip: bounds them to ± this before.
    """
    if isinstance(space, Discrete):
        return lambda raw: np.array(raw.argmax(-1), np.int64, ndmin=1)
    if isinstance(space, MultiDiscrete):
        ends = np.cumsum(space.counts)[:-1]
        return lambda raw: np.stack([part.argmax(-1) for part in np.split(_rows(raw), ends, axis=1)], axis=1)
    if isinstance(space, MultiBinary):
        return lambda raw: (raw > 0).astype(np.int8).reshape(-1, *space.shape)
    return _squashed(space, clip) if is_squashed else _clipped(space)


def action_spec(space: Leaf) -> ArraySpec:
    """What clients get."""
    if isinstance(space, Box):
        low, high = (_told(bound) for bound in (space.low, space.high))
        dtype = space.dtype.name if space.dtype.kind == "f" else "float32"
        return ArraySpec(space.shape, dtype, f"{low} … {high}")
    if isinstance(space, Discrete):
        return ArraySpec((), "int64", f"one of 0 … {space.count - 1}")
    if isinstance(space, MultiDiscrete):
        return ArraySpec(space.shape, "int64", f"each from 0, below {', '.join(map(str, space.counts[:20]))}")
    return ArraySpec(space.shape, "int8", "each 0 or 1")


def _rows(raw: Array) -> Array:
    return raw if raw.ndim == 2 else raw[None]


def _clipped(space: Box) -> Head:
    return lambda raw: np.clip(raw.reshape(-1, *space.shape), space.low, space.high)


def _squashed(space: Box, clip: float | None) -> Head:
    low = space.low.astype(np.result_type(space.low, np.float32))
    span = space.high - low

    def squashed(raw: Array) -> Array:
        if clip is not None:
            raw = np.clip(raw, -clip, clip)
        return low + 0.5 * (np.tanh(raw).reshape(-1, *space.shape) + 1.0) * span

    return squashed


def _told(bound: Array) -> str:
    """A bound in words: one number where all are the same."""
    numbers = np.unique(bound)
    if len(numbers) == 1:
        return f"{numbers[0]:g}"
    return f"({', '.join(f'{number:g}' for number in bound.ravel()[:12])}{', …' if bound.size > 12 else ''})"
