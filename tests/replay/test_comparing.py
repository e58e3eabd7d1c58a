"""How far answers are apart: whatever numbers they hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers

from policyserve.core.arrays import Array
from policyserve.replay.comparing import Pair, as_rows, compare, differences

DTYPES = st.sampled_from(["float16", "float32", "float64", "int32", "int64", "uint8", "bool"])
ANY_ARRAYS = DTYPES.flatmap(
    lambda dtype: numbers.arrays(dtype, numbers.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
TOLERANCES = st.one_of(st.none(), st.floats(0, 1e3))


def pairs_of(recorded: list[Any], replayed: list[Any]) -> list[Pair]:
    both = zip(recorded, replayed, strict=True)
    return [Pair(1, step, np.asarray(one), np.asarray(other)) for step, (one, other) in enumerate(both, 1)]


def floats(*rows: Any) -> list[Array]:
    return [np.asarray(row, np.float32) for row in rows]


@given(st.lists(ANY_ARRAYS, max_size=5), TOLERANCES)
def test_an_answer_is_the_same_as_itself_whatever_it_holds(answers: list[Array], tolerance: float | None) -> None:
    found = compare(pairs_of(answers, [answer.copy() for answer in answers]), tolerance)
    assert found.is_same
    assert found.is_within == bool(answers)
    assert (found.first, found.first_beyond, found.worst, found.beyond) == (None, None, None, 0)
    assert all(dimension.max == dimension.mean == dimension.rms == 0 for dimension in found.dimensions)


@given(st.lists(st.tuples(ANY_ARRAYS, ANY_ARRAYS), max_size=5), TOLERANCES)
def test_any_two_answers_can_be_compared(answers: list[tuple[Array, Array]], tolerance: float | None) -> None:
    found = compare(pairs_of([one for one, _ in answers], [other for _, other in answers]), tolerance)
    differ = [
        one.shape != other.shape or not np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")
        for one, other in answers
    ]
    if not any(one.dtype.kind != other.dtype.kind for one, other in answers):
        assert found.is_same == (not any(differ))
    assert found.requests == len(answers)
    assert (found.first is None) == (found.worst is None) == (found.differing == 0)
    assert (found.first_beyond is None) == (found.beyond == 0)
    for dimension in found.dimensions:
        assert not any(math.isnan(value) for value in (dimension.max, dimension.mean, dimension.rms, dimension.share))
        assert dimension.max >= dimension.mean >= 0
        assert dimension.max >= dimension.rms >= 0


@given(st.data())
def test_differences_are_the_same_from_both_sides(data: st.DataObject) -> None:
    shape = data.draw(numbers.array_shapes(min_dims=1, max_dims=2))
    one, other = (data.draw(numbers.arrays("float32", shape)) for _ in range(2))
    found = differences(one, other)
    np.testing.assert_array_equal(found, differences(other, one))
    assert not np.isnan(found).any()
    np.testing.assert_array_equal(found == 0, (one == other) | (np.isnan(one) & np.isnan(other)))


@pytest.mark.parametrize(
    ("recorded", "replayed", "apart"),
    [
        (math.nan, math.nan, 0.0),
        (math.nan, 1.0, math.inf),
        (math.inf, math.inf, 0.0),
        (math.inf, -math.inf, math.inf),
        (math.inf, 1.0, math.inf),
        (-0.0, 0.0, 0.0),
        (2**60, 2**60 + 1, np.finfo(np.float64).tiny),
        (True, False, 1.0),
    ],
)
def test_what_is_no_usual_number_has_a_difference_all_the_same(recorded: Any, replayed: Any, apart: float) -> None:
    assert differences(np.asarray([recorded]), np.asarray([replayed])).tolist() == [apart]


def test_each_dimension_has_its_figures() -> None:
    recorded = floats([0, 10], [1, 10], [2, 10])
    replayed = floats([0, 10], [1.5, 10], [2, 13])
    found = compare(pairs_of(recorded, replayed), tolerance=1.0)
    one, other = found.dimensions
    assert (one.low, one.high, one.spread, one.max, one.share, one.beyond) == (0, 2, 2, 0.5, 0.25, 0)
    assert one.mean == pytest.approx(0.5 / 3)
    assert one.rms == pytest.approx(math.sqrt(0.25 / 3))
    assert (other.spread, other.max, other.share, other.beyond) == (0, 3, math.inf, 1)
    assert found.worst_first == [1, 0]
    assert (found.requests, found.differing, found.beyond, found.is_within) == (3, 2, 1, False)


def test_the_first_and_the_worst_place_are_told() -> None:
    recorded = floats(np.zeros((3, 2)), np.zeros((3, 2)), [[0, 0], [4, 8], [0, 0]])
    replayed = [array.copy() for array in recorded]
    replayed[1][2, 1] = 0.25
    replayed[2][1, 0] = 2
    found = compare(pairs_of(recorded, replayed), tolerance=1.0)
    assert found.rows == 3
    assert found.first is not None
    assert found.first_beyond == found.worst
    assert found.worst is not None
    assert (found.first.step, found.first.row, found.first.dimension, found.first.replayed) == (2, 3, 1, 0.25)
    assert (found.worst.step, found.worst.row, found.worst.dimension) == (3, 2, 0)
    assert (found.worst.recorded, found.worst.replayed) == (4, 2)


def test_rounding_is_within_the_usual_tolerance_and_beyond_an_exact_one() -> None:
    recorded = floats([0.001, 100.0], [1.0, 50.0])
    replayed = floats([0.001 + 1e-6, 100.0005], [1.0, 50.0])
    assert compare(pairs_of(recorded, replayed)).is_within
    assert not compare(pairs_of(recorded, replayed)).is_same
    assert not compare(pairs_of(recorded, replayed), 0.0).is_within
    assert not compare(pairs_of(recorded, floats([0.001, 100.0], [1.0, 50.1]))).is_within


def test_whole_numbers_are_exact_by_default() -> None:
    recorded = [np.asarray(1_000_000), np.asarray(2)]
    assert not compare(pairs_of(recorded, [np.asarray(1_000_001), np.asarray(2)])).is_within


def test_half_precision_has_a_rounding_of_its_own() -> None:
    one = np.asarray([1.0, 0.5], np.float16)
    assert compare(pairs_of([one], [one + np.float16(0.001)])).is_within


@pytest.mark.parametrize(
    ("shape", "axes", "rows"),
    [
        ((), None, (1, 1)),
        ((), 0, (1, 1)),
        ((7,), None, (1, 7)),
        ((7,), 0, (7, 1)),
        ((50, 7), None, (50, 7)),
        ((50, 7), 1, (50, 7)),
        ((4, 50, 7), 1, (200, 7)),
        ((50, 2, 3), 2, (50, 6)),
        ((2, 3), 5, (1, 6)),
        ((0, 7), 1, (0, 7)),
        ((3, 0), 1, (3, 0)),
    ],
)
def test_an_answer_is_rows_of_an_actions_numbers(
    shape: tuple[int, ...], axes: int | None, rows: tuple[int, int]
) -> None:
    assert as_rows(np.zeros(shape), axes).shape == rows


def test_another_shape_is_no_difference_and_never_within() -> None:
    found = compare(pairs_of(floats([1, 2], [1, 2]), floats([1, 2, 3], [1, 2])))
    assert not found.is_within
    assert not found.is_same
    (other,) = found.other_shapes
    assert (other.step, other.recorded, other.replayed) == (1, (2,), (3,))
    assert len(found.dimensions) == 2


def test_nothing_compared_is_not_within() -> None:
    found = compare([])
    assert not found.is_within
    assert (found.requests, found.dimensions, found.worst) == (0, (), None)
