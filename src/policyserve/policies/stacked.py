"""A policy around a function of stacked rows: many clients' observations in, one call, their actions out.

A row of an array is one input's array; a row of texts is one input's text, so that N texts are a list of N str.

What must stay true: every input gets the rows it came with, in its order, however inputs are grouped, cut and padded;
the function never sees more than max_batch rows, nor, with buckets, a number of rows that was not warmed; and what it
was given never changes behind its back: it may keep its rows, and write into them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, PolicyFailed
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.printable import type_name
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec

# Arrays with a leading axis of N rows, and lists of N texts, in the spec's nesting -> (N, *action) or
# (N, horizon, *action).
Forward: TypeAlias = Callable[[Mapping[str, Any]], Array]
# A number of bytes -> so many uint8 in one dimension, writable, that nobody else refers to.
Allocate: TypeAlias = Callable[[int], Array]

_EXAMPLE = 'PolicySpec("arm", {"state": ArraySpec((7,))}, ArraySpec((7,)))'
_ALIGNMENT = 64  # a cache line; where it is missing, JAX copies once more
_LARGE = 1 << 16  # bytes, from which a second copy costs more than to look for such a place


def powers_of_two(largest: int) -> tuple[int, ...]:
    """1, 2, 4 … below `largest`, and `largest` itself: the batch sizes that a compiled policy is warmed for."""
    return (*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest)


class StackedPolicy:
    """Answers a batch by stacking its inputs, clients' own batches among them, in calls of at most max_batch rows.

    Of a text in the spec forward gets a list of N str. A client's own batch has one text, which is each of its rows'.

    buckets: pad every call with zeros, and empty texts, to the next of these sizes, whose last is spec.max_batch; None:
    no padding. allocate: where each stack comes from, pinned memory for a GPU say; None: ordinary memory.
    forward returns a fresh array each time: its rows are handed out as they are. Raises ConfigError for a spec with
    lists of texts, and for what is no PolicySpec.
    """

    def __init__(
        self,
        forward: Forward,
        spec: PolicySpec,
        *,
        buckets: Sequence[int] | None = None,
        allocate: Allocate | None = None,
    ) -> None:
        if not isinstance(spec, PolicySpec):
            raise ConfigError(f"spec: expected a PolicySpec, got {type_name(spec)}; {_EXAMPLE} is one")
        self.spec = spec
        self.buckets = buckets
        self._forward = forward
        self._allocate = allocate
        # Whether two valid observations can have different shapes, and so cannot always be stacked.
        self._is_ragged = any(leaf.optional or None in _row_shape(leaf) for leaf in spec.leaves.values())
        self._has_texts = any(isinstance(leaf, TextSpec) for leaf in spec.leaves.values())

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        if self._has_texts:
            batch = _with_text_rows(batch)
        if len(batch) == 1 and batch[0].batch_size is None:
            return [ActionChunk(self._call(batch, 1)[0, ...])]
        if not self._is_ragged:
            return self._infer_alike(batch)
        chunks: dict[int, ActionChunk] = {}
        for places in _group_by_shape(batch):
            chunks.update(zip(places, self._infer_alike([batch[place] for place in places]), strict=True))
        return [chunks[place] for place in range(len(batch))]

    def prepare(self, batch: Sequence[PolicyInput]) -> Mapping[str, Any] | None:
        """Stack a batch that one call takes; None if infer() has to group or to cut it."""
        count = sum(_row_count(one) for one in batch)
        if self._is_ragged or not 0 < count <= self.spec.max_batch:
            return None
        return self._rows(_with_text_rows(batch) if self._has_texts else batch, count, self._padded(count))

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: Mapping[str, Any] | None) -> list[ActionChunk]:
        if prepared is None:
            return self.infer(batch)
        count = sum(_row_count(one) for one in batch)
        return _dealt(batch, self._forward_rows(prepared, count, self._padded(count)))

    def close(self) -> None:
        """Nothing to release: the function belongs to its maker."""

    def _infer_alike(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        """Answer inputs whose rows all have the same shapes."""
        return _dealt(batch, self._call_in_steps(batch, sum(_row_count(one) for one in batch)))

    def _call_in_steps(self, batch: Sequence[PolicyInput], count: int) -> Array:
        step = self.spec.max_batch
        if count == 0:
            return self._no_actions
        if count <= step:
            return self._call(batch, count)
        rows = batch[0].observation if len(batch) == 1 else _join_rows(batch)
        parts: list[Array] = []
        for start in range(0, count, step):
            size = min(step, count - start)
            parts.append(self._call([PolicyInput(_slice_rows(rows, start, start + size), size)], size))
        return np.concatenate(parts)

    def _call(self, batch: Sequence[PolicyInput], count: int) -> Array:
        size = self._padded(count)
        return self._forward_rows(self._rows(batch, count, size), count, size)

    def _forward_rows(self, rows: Mapping[str, Any], count: int, size: int) -> Array:
        """The actions of the first `count` of `size` rows."""
        actions = self._forward(rows)
        if not hasattr(actions, "shape"):
            raise PolicyFailed(f"{self.spec.name} answered {type(actions).__name__}, expected an array of {size} rows")
        if len(actions) != size:
            raise PolicyFailed(f"{self.spec.name} answered {len(actions)} rows for {size}")
        return actions[:count]

    def _padded(self, count: int) -> int:
        return count if self.buckets is None else next(bucket for bucket in self.buckets if bucket >= count)

    def _rows(self, batch: Sequence[PolicyInput], count: int, size: int) -> Mapping[str, Any]:
        """The batch as `size` rows, zeros after the first `count`; what is rows already is not copied."""
        if len(batch) == 1 and size == count:
            one = batch[0]
            return one.observation if one.batch_size is not None else _map_leaves(_as_row, one.observation)
        is_single = [one.batch_size is None for one in batch]
        return self._stack([one.observation for one in batch], is_single, count, size)

    def _stack(
        self, maps: Sequence[Mapping[str, Any]], is_single: Sequence[bool], count: int, size: int
    ) -> dict[str, Any]:
        stacked: dict[str, Any] = {}
        for key, first in maps[0].items():
            values = [one[key] for one in maps]
            if isinstance(first, np.ndarray):
                shape = first.shape if is_single[0] else first.shape[1:]
                rows = self._empty((size, *shape), first.dtype)
                _copy_rows(values, is_single, rows[:count])
                rows[count:] = 0
                stacked[key] = rows
            elif isinstance(first, list):
                stacked[key] = _joined_texts(values) + [""] * (size - count)
            else:
                stacked[key] = self._stack(values, is_single, count, size)
        return stacked

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array with whatever its memory held before."""
        size = prod(shape) * dtype.itemsize
        if self._allocate is None and size < _LARGE:
            return np.empty(shape, dtype)
        memory = (self._allocate or _aligned)(max(size, 1))
        return memory[:size].view(dtype).reshape(shape)

    @cached_property
    def _no_actions(self) -> Array:
        if self.spec.action is None:
            raise ConfigError(f"{self.spec.name}: a policy that takes clients' own batches needs an action spec")
        steps = () if self.spec.horizon is None else (self.spec.horizon,)
        return self.spec.action.example((0, *steps))


def _aligned(size: int) -> Array:
    whole = np.empty(size + _ALIGNMENT, np.uint8)
    start = -whole.__array_interface__["data"][0] % _ALIGNMENT
    return whole[start : start + size]


def _row_shape(leaf: Any) -> tuple[int | None, ...]:
    if isinstance(leaf, ArraySpec):
        return leaf.shape
    if isinstance(leaf, ImageSpec):
        return (leaf.height, leaf.width) if len(leaf.layouts) == len(leaf.dtypes) == 1 else (None,)
    if isinstance(leaf, TextSpec):
        return ()
    raise ConfigError(f"a stacked policy takes arrays, images and single texts, got {type(leaf).__name__} in its spec")


def _row_count(one: PolicyInput) -> int:
    return 1 if one.batch_size is None else one.batch_size


def _dealt(batch: Sequence[PolicyInput], actions: Array) -> list[ActionChunk]:
    """Each input's part of the rows of actions."""
    chunks: list[ActionChunk] = []
    start = 0
    for one in batch:
        end = start + _row_count(one)
        chunks.append(ActionChunk(actions[start, ...] if one.batch_size is None else actions[start:end]))
        start = end
    return chunks


def _group_by_shape(batch: Sequence[PolicyInput]) -> list[list[int]]:
    """The places in `batch` whose rows can be stacked with one another."""
    groups: dict[Any, list[int]] = {}
    for place, one in enumerate(batch):
        shapes = _map_leaves(_without_batch_axis(one), one.observation)
        groups.setdefault(repr(shapes), []).append(place)
    return list(groups.values())


def _without_batch_axis(one: PolicyInput) -> Callable[[Any], Any]:
    axes = 0 if one.batch_size is None else 1
    return lambda leaf: "text" if isinstance(leaf, list) else (leaf.dtype.name, leaf.shape[axes:])


def _with_text_rows(batch: Sequence[PolicyInput]) -> list[PolicyInput]:
    """The inputs with each of their texts in a list: once for each row of the input."""

    def repeated(count: int) -> Callable[[Any], Any]:
        return lambda leaf: [leaf] * count if isinstance(leaf, str) else leaf

    return [one._replace(observation=_map_leaves(repeated(_row_count(one)), one.observation)) for one in batch]


def _joined_texts(lists: Sequence[list[str]]) -> list[str]:
    return [text for texts in lists for text in texts]


def _as_row(leaf: Any) -> Any:
    return leaf if isinstance(leaf, list) else leaf[None]


def _copy_rows(arrays: Sequence[Array], is_single: Sequence[bool], rows: Array) -> None:
    if all(is_single) and rows.ndim > 1:  # half the time of what follows
        np.concatenate(arrays, out=rows.reshape(len(rows) * rows.shape[1], *rows.shape[2:]))
    else:
        np.concatenate(_with_batch_axis(arrays, is_single), out=rows)


def _with_batch_axis(arrays: Sequence[Array], is_single: Sequence[bool]) -> list[Array]:
    return [array[None] if one else array for array, one in zip(arrays, is_single, strict=True)]


def _join_rows(batch: Sequence[PolicyInput]) -> Mapping[str, Any]:
    """More rows than one call takes, in memory of their own."""
    is_single = [one.batch_size is None for one in batch]

    def join(*leaves: Any) -> Any:
        if isinstance(leaves[0], list):
            return _joined_texts(leaves)
        return np.concatenate(_with_batch_axis(leaves, is_single))

    return _map_leaves(join, *(one.observation for one in batch))


def _slice_rows(rows: Mapping[str, Any], start: int, end: int) -> Mapping[str, Any]:
    return _map_leaves(lambda leaf: leaf[start:end], rows)


def _map_leaves(function: Callable[..., Any], first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Apply `function` to the arrays and texts that stand at the same place in nested maps of the same keys."""
    return {
        key: function(value, *[other[key] for other in others])
        if isinstance(value, (np.ndarray, str, list))
        else _map_leaves(function, value, *[other[key] for other in others])
        for key, value in first.items()
    }
