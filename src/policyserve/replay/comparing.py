"""How far two answers to the same requests are apart, number by number, and where that begins. Pure.

An answer is rows of numbers: a row for each step of a chunk, a column for each dimension of an action. Two NaN are the
same, and so are two Inf of one sign; one of them against anything else is infinitely far from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserve.core.arrays import Array

_ROUNDING = 1e-5  # of a dimension's largest recorded number, or some bits of its dtype where that is coarser
_SMALLEST = 1e-8


@dataclass(frozen=True)
class Pair:
    """One request's two answers. session: its number. step: which of the session's requests, from 1."""

    session: int
    step: int
    recorded: Array
    replayed: Array


@dataclass(frozen=True)
class Place:
    """Two numbers that differ. row: the step of the chunk, from 1. dimension: of the action, from 0."""

    session: int
    step: int
    row: int
    dimension: int
    recorded: float
    replayed: float


@dataclass(frozen=True)
class OtherShape:
    """A request whose answers cannot be compared."""

    session: int
    step: int
    recorded: tuple[int, ...]
    replayed: tuple[int, ...]


@dataclass(frozen=True)
class Dimension:
    """One number of an action over all requests.

    low, high: the finite numbers that were recorded, NaN where none is. max, mean, rms: of the differences; Inf where
    one is infinite. allowed: the largest difference that is within the tolerance. beyond: how many are not.
    """

    low: float
    high: float
    max: float
    mean: float
    rms: float
    allowed: float
    beyond: int

    @property
    def spread(self) -> float:
        """How far the recorded numbers reach."""
        return self.high - self.low

    @property
    def share(self) -> float:
        """The largest difference as a share of the spread; Inf where the recorded number never changed."""
        if not self.max:
            return 0.0
        return self.max / self.spread if self.spread > 0 else math.inf


@dataclass(frozen=True)
class Comparison:
    """All that was found. rows: the longest answer's.

    requests: those that were compared; differing, beyond: of them those that differ at all, beyond the tolerance.
    first: the first difference; first_beyond: the first that is beyond the tolerance; worst: the largest as a share of
    its dimension's spread. Each is None where there is none.
    """

    requests: int
    rows: int
    dimensions: tuple[Dimension, ...]
    differing: int
    beyond: int
    first: Place | None
    first_beyond: Place | None
    worst: Place | None
    other_shapes: tuple[OtherShape, ...]

    @property
    def is_same(self) -> bool:
        """Whether no number differs."""
        return not self.differing and not self.other_shapes

    @property
    def is_within(self) -> bool:
        """Whether something was compared, and all of it is within the tolerance."""
        return self.requests > 0 and not self.beyond and not self.other_shapes

    @property
    def worst_first(self) -> list[int]:
        """The dimensions, those first whose largest difference is the largest share of its spread."""
        numbers = range(len(self.dimensions))
        return sorted(numbers, key=lambda one: (-self.dimensions[one].share, -self.dimensions[one].max, one))


def as_rows(actions: Array, action_axes: int | None = None) -> Array:
    """An answer as (rows, dimensions). action_axes: of one step's action; None: the last axis, if there is one."""
    axes = min(actions.ndim, 1 if action_axes is None else action_axes)
    width = math.prod(actions.shape[actions.ndim - axes :])
    return actions.reshape(math.prod(actions.shape[: actions.ndim - axes]), width)


def differences(recorded: Array, replayed: Array) -> Array:
    """How far apart each two numbers are, float64 of their shape; 0 for what is the same, and never NaN."""
    one, other = _numbers(recorded), _numbers(replayed)
    with np.errstate(all="ignore"):
        found = np.abs(one - other)
    is_same = (recorded == replayed) | (np.isnan(one) & np.isnan(other))
    found = np.where(np.isnan(found), np.inf, found)
    return np.where(is_same, 0.0, np.maximum(found, np.finfo(np.float64).tiny))  # whole numbers beyond 2**53


def compare(pairs: Sequence[Pair], tolerance: float | None = None, action_axes: int | None = None) -> Comparison:
    """Compare the answers, in their order.

    tolerance: the largest difference that is allowed, in the actions' own units; None: what rounding brings, 1e-5 of
    a dimension's largest recorded number, and nothing for whole numbers. action_axes: see as_rows().
    """
    fitting = [pair for pair in pairs if pair.recorded.shape == pair.replayed.shape]
    others = [pair for pair in pairs if pair.recorded.shape != pair.replayed.shape]
    rows = [(pair, as_rows(pair.recorded, action_axes), as_rows(pair.replayed, action_axes)) for pair in fitting]
    apart = [differences(one, other) for _, one, other in rows]
    width = max((found.shape[1] for found in apart), default=0)
    dimensions = [
        _dimension(_column(dimension, (one for _, one, _ in rows)), _column(dimension, apart), tolerance)
        for dimension in range(width)
    ]
    allowed = np.array([dimension.allowed for dimension in dimensions])
    spreads = np.array([dimension.spread or math.nan for dimension in dimensions])
    places = _Places(rows, apart)
    return Comparison(
        requests=len(pairs),
        rows=max((len(found) for found in apart), default=0),
        dimensions=tuple(dimensions),
        differing=sum(bool(found.any()) for found in apart),
        beyond=sum(bool((found > allowed[: found.shape[1]]).any()) for found in apart),
        first=places.first(np.zeros(width)),
        first_beyond=places.first(allowed),
        worst=places.worst(spreads),
        other_shapes=tuple(
            OtherShape(pair.session, pair.step, pair.recorded.shape, pair.replayed.shape) for pair in others
        ),
    )


def _numbers(array: Array) -> Array:
    with np.errstate(all="ignore"):
        return array.astype(np.float64)


def _column(dimension: int, arrays: Iterable[Array]) -> Array:
    """One dimension's numbers of all answers that have so many."""
    return np.concatenate([array[:, dimension] for array in arrays if array.shape[1] > dimension])


def _dimension(recorded: Array, apart: Array, tolerance: float | None) -> Dimension:
    numbers = _numbers(recorded)
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    allowed = _rounding(recorded.dtype, max(abs(low), abs(high))) if tolerance is None else tolerance
    most = float(apart.max(initial=0.0))
    if not apart.size or not math.isfinite(most):
        return Dimension(low, high, most, most, most, allowed, int((apart > allowed).sum()))
    scaled = apart / (most or 1.0)  # the square of a large number overflows
    mean, rms = float(scaled.mean()) * most, math.sqrt(float(np.square(scaled).mean())) * most
    return Dimension(low, high, most, mean, rms, allowed, int((apart > allowed).sum()))


def _rounding(dtype: np.dtype[Any], largest: float) -> float:
    """What may differ by the order in which a machine adds its numbers."""
    if dtype.kind != "f":
        return 0.0
    share = max(_ROUNDING, 4 * float(np.finfo(dtype).eps))
    return _SMALLEST + share * (0.0 if math.isnan(largest) else largest)


class _Places:
    """Finds where answers differ."""

    def __init__(self, rows: Sequence[tuple[Pair, Array, Array]], apart: Sequence[Array]) -> None:
        self._rows = rows
        self._apart = apart

    def first(self, allowed: Array) -> Place | None:
        """The first difference that is larger than what is allowed of its dimension."""
        for number, found in enumerate(self._apart):
            is_beyond = found > allowed[: found.shape[1]]
            if is_beyond.any():
                row, dimension = np.argwhere(is_beyond)[0]
                return self._place(number, int(row), int(dimension))
        return None

    def worst(self, spreads: Array) -> Place | None:
        """The largest difference as a share of its dimension's spread; of one that never changed any is larger."""
        most, place = (-1.0, 0.0), None
        for number, found in enumerate(self._apart):
            if not found.any():
                continue
            with np.errstate(all="ignore"):
                shares = found / spreads[: found.shape[1]]
            shares = np.where(np.isnan(shares), np.where(found > 0, np.inf, 0.0), shares)
            row, dimension = np.unravel_index(int(shares.argmax()), shares.shape)
            here = float(shares[row, dimension]), float(found[row, dimension])
            if here > most:
                most, place = here, self._place(number, int(row), int(dimension))
        return place

    def _place(self, number: int, row: int, dimension: int) -> Place:
        pair, one, other = self._rows[number]
        return Place(
            pair.session, pair.step, row + 1, dimension, float(one[row, dimension]), float(other[row, dimension])
        )
