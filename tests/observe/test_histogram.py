"""Counts between fixed bounds, and percentiles of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.observe.histogram import SIZES, TIMES_MS, Histogram

VALUES = st.lists(st.floats(0.02, 100_000.0), max_size=50)


def histogram(*values: float) -> Histogram:
    made = Histogram(TIMES_MS)
    for value in values:
        made.add(value)
    return made


def test_values_are_counted_up_to_and_with_their_bound() -> None:
    made = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        made.add(value)
    assert made.counts == [2, 2, 1]
    assert made.sums == [1.5, 3.5, 9.0]


@given(VALUES)
def test_count_and_sum_are_exact(values: list[float]) -> None:
    made = histogram(*values)
    assert (made.count, made.total) == (len(values), pytest.approx(sum(values)))
    found = made.snapshot()
    assert (found.count, found.total) == (len(values), pytest.approx(sum(values)))


@given(VALUES.filter(bool), st.sampled_from([50, 90, 99]))
def test_a_percentile_is_off_by_a_bounds_width_at_most(values: list[float], percent: int) -> None:
    found = histogram(*values).snapshot().percentile(percent)
    assert found == pytest.approx(float(np.percentile(values, percent, method="inverted_cdf")), rel=0.2)


@given(st.floats(0.0, 1e9), st.sampled_from([0, 1, 50, 99, 100]))
def test_a_percentile_of_one_value_is_that_value(value: float, percent: int) -> None:
    assert histogram(value).snapshot().percentile(percent) == value


@given(st.floats(0.02, 100_000.0), st.integers(2, 1000))
def test_a_percentile_of_values_that_are_alike_is_a_tenth_off_at_most(value: float, count: int) -> None:
    found = histogram(*[value] * count).snapshot()
    assert found.percentile(99) == pytest.approx(value, rel=0.1)
    assert found.percentile(1) <= found.percentile(50) <= found.percentile(99)


def test_a_few_values_far_apart_are_told_as_they_are() -> None:
    found = histogram(0.31, 1.5, 31.0, 352.0).snapshot()
    assert [found.percentile(percent) for percent in (25, 50, 75, 99)] == [0.31, 1.5, 31.0, 352.0]


def test_the_value_of_one_moment_is_exact_though_others_came_before_near_it() -> None:
    made = histogram(31.0, 32.0, 30.0)
    before = made.snapshot()
    made.add(31.7)
    assert made.snapshot().since(before).percentile(99) == pytest.approx(31.7)


def test_of_nothing_everything_is_0() -> None:
    counts = histogram().snapshot()
    assert (counts.count, counts.mean, counts.percentile(99)) == (0, 0.0, 0.0)


def test_what_came_between_two_moments_is_their_difference() -> None:
    made = histogram(1.0, 1.0)
    before = made.snapshot()
    made.add(50.0)
    between = made.snapshot().since(before)
    assert (between.count, between.mean) == (1, 50.0)
    assert between.percentile(50) == pytest.approx(50, rel=0.2)


def test_bounds_ascend() -> None:
    for bounds in (TIMES_MS, SIZES):
        assert list(bounds) == sorted(set(bounds))
    assert SIZES[:5] == (1, 2, 3, 4, 5)
