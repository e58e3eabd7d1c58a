"""A policy around a function of stacked rows: many clients' observations in, one call, their actions out.

What must stay true: every input gets the rows it came with, in its order, however inputs are grouped, cut and padded;
and the function never sees more than max_batch rows, nor, with buckets, a number of rows that was not warmed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, PolicyFailed
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec

# Arrays with a leading axis of N rows, in the spec's nesting -> (N, *action) or (N, horizon, *action).
Forward: TypeAlias = Callable[[Mapping[str, Any]], Array]


def powers_of_two(largest: int) -> tuple[int, ...]:
    """1, 2, 4 … below `largest`, and `largest` itself: the batch sizes that a compiled policy is warmed for."""
    return (*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest)


class StackedPolicy:
    """Answers a batch by stacking its inputs, clients' own batches among them, in calls of at most max_batch rows.

    buckets: pad every call with zeros to the next of these sizes, whose last is spec.max_batch; None: no padding.
    forward returns a fresh array each time: its rows are handed out as they are. A spec with texts is a ConfigError.
    """

    def __init__(self, forward: Forward, spec: PolicySpec, *, buckets: Sequence[int] | None = None) -> None:
        self.spec = spec
        self.buckets = buckets
        self._forward = forward
        # Whether two valid observations can have different shapes, and so cannot always be stacked.
        self._is_ragged = any(leaf.optional or None in _row_shape(leaf) for leaf in spec.leaves.values())

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        if len(batch) == 1 and batch[0].batch_size is None:
            rows = _map_arrays(lambda array: array[None], batch[0].observation)
            return [ActionChunk(self._call(rows, 1)[0, ...])]
        if not self._is_ragged:
            return self._infer_alike(batch)
        chunks: dict[int, ActionChunk] = {}
        for places in _group_by_shape(batch):
            chunks.update(zip(places, self._infer_alike([batch[place] for place in places]), strict=True))
        return [chunks[place] for place in range(len(batch))]

    def close(self) -> None:
        """Nothing to release: the function belongs to its maker."""

    def _infer_alike(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        """Answer inputs whose rows all have the same shapes."""
        actions = self._call_in_chunks(_stack(batch), sum(_row_count(one) for one in batch))
        chunks: list[ActionChunk] = []
        start = 0
        for one in batch:
            end = start + _row_count(one)
            chunks.append(ActionChunk(actions[start, ...] if one.batch_size is None else actions[start:end]))
            start = end
        return chunks

    def _call_in_chunks(self, rows: Mapping[str, Any], count: int) -> Array:
        step = self.spec.max_batch
        if count == 0:
            return self._no_actions
        if count <= step:
            return self._call(rows, count)
        parts: list[Array] = []
        for start in range(0, count, step):
            end = min(start + step, count)
            parts.append(self._call(_slice_rows(rows, start, end), end - start))
        return np.concatenate(parts)

    def _call(self, rows: Mapping[str, Any], count: int) -> Array:
        size = count if self.buckets is None else next(bucket for bucket in self.buckets if bucket >= count)
        actions = self._forward(rows if size == count else _pad_rows(rows, size))
        if len(actions) != size:
            raise PolicyFailed(f"{self.spec.name} answered {len(actions)} rows for {size}")
        return actions[:count]

    @cached_property
    def _no_actions(self) -> Array:
        if self.spec.action is None:
            raise ConfigError(f"{self.spec.name}: a policy that takes clients' own batches needs an action spec")
        steps = () if self.spec.horizon is None else (self.spec.horizon,)
        return self.spec.action.example((0, *steps))


def _row_shape(leaf: Any) -> tuple[int | None, ...]:
    if isinstance(leaf, ArraySpec):
        return leaf.shape
    if isinstance(leaf, ImageSpec):
        return (leaf.height, leaf.width) if len(leaf.layouts) == len(leaf.dtypes) == 1 else (None,)
    raise ConfigError(f"a stacked policy takes arrays and images, got {type(leaf).__name__} in its spec")


def _row_count(one: PolicyInput) -> int:
    return 1 if one.batch_size is None else one.batch_size


def _group_by_shape(batch: Sequence[PolicyInput]) -> list[list[int]]:
    """The places in `batch` whose rows can be stacked with one another."""
    groups: dict[Any, list[int]] = {}
    for place, one in enumerate(batch):
        shapes = _map_arrays(_without_batch_axis(one), one.observation)
        groups.setdefault(repr(shapes), []).append(place)
    return list(groups.values())


def _without_batch_axis(one: PolicyInput) -> Callable[[Array], tuple[Any, ...]]:
    axes = 0 if one.batch_size is None else 1
    return lambda array: (array.dtype.name, array.shape[axes:])


def _stack(batch: Sequence[PolicyInput]) -> Mapping[str, Any]:
    if len(batch) == 1 and batch[0].batch_size is not None:
        return batch[0].observation
    is_single = [one.batch_size is None for one in batch]

    def join(*arrays: Array) -> Array:
        if all(is_single) and arrays[0].ndim:  # half the time of what follows
            return np.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)
        return np.concatenate([array[None] if one else array for array, one in zip(arrays, is_single, strict=True)])

    return _map_arrays(join, *(one.observation for one in batch))


def _slice_rows(rows: Mapping[str, Any], start: int, end: int) -> Mapping[str, Any]:
    return _map_arrays(lambda array: array[start:end], rows)


def _pad_rows(rows: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    def pad(array: Array) -> Array:
        padded = np.zeros((size, *array.shape[1:]), array.dtype)
        padded[: len(array)] = array
        return padded

    return _map_arrays(pad, rows)


def _map_arrays(function: Callable[..., Any], first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Apply `function` to the arrays that stand at the same place in nested maps of the same keys."""
    return {
        key: function(value, *[other[key] for other in others])
        if isinstance(value, np.ndarray)
        else _map_arrays(function, value, *[other[key] for other in others])
        for key, value in first.items()
    }
