"""The arithmetic behind the tables."""

from __future__ import annotations

from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.bench.measures import Pace, Search, in_turns, quantiles, ratios, spread

values = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@given(values)
def test_a_quantile_was_seen_and_at_least_its_share_is_not_above_it(seen: list[float]) -> None:
    found = quantiles(seen)
    for share, value in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99), (1.0, found.max)):
        assert value in seen
        assert sum(one <= value for one in seen) >= share * len(seen)


@given(values)
def test_quantiles_rise(seen: list[float]) -> None:
    found = quantiles(seen)
    assert found.p50 <= found.p90 <= found.p99 <= found.max


@given(values)
def test_a_quartile_lies_between_the_values_next_to_its_place(seen: list[float]) -> None:
    found, ranked = spread(seen), sorted(seen)
    for share, value in ((0.25, found.low), (0.5, found.median), (0.75, found.high)):
        place = share * (len(seen) - 1)
        slack = 1e-9 * (1 + value)  # of the interpolation
        assert ranked[floor(place)] - slack <= value <= ranked[ceil(place)] + slack
    assert found.count == len(seen)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50), st.floats(0.01, 100))
def test_noise_that_hits_both_of_a_pair_leaves_the_ratio_alone(noise: list[float], ratio: float) -> None:
    found = ratios([ratio * one for one in noise], noise)
    assert found.low == pytest.approx(ratio)
    assert found.high == pytest.approx(ratio)


def test_either_goes_first_half_of_the_time() -> None:
    turns = in_turns(20)
    assert [first for first, _ in turns].count(0) == 10
    assert all(sorted(turn) == [0, 1] for turn in turns)


@given(st.integers(1, 400), st.floats(1, 1000), st.floats(0, 0.5))
def test_an_open_loop_asks_at_fixed_times_however_late_answers_are(periods: int, rate_hz: float, delay: float) -> None:
    period = 1 / rate_hz
    pace = Pace(10.0, 10.0 + periods * period, period, 0.0)
    now, dues = 10.0, []
    while (due := pace.next_due(now)) is not None:
        dues.append(due)
        now = max(now, due) + delay
    assert dues == [pytest.approx(10.0 + number * period) for number in range(len(dues))]
    assert len(dues) + pace.unsent == pytest.approx(periods, abs=1)  # a rounded last one
    if delay < period:
        assert pace.unsent == 0


def test_a_closed_loop_asks_when_it_is_answered_and_owes_nothing() -> None:
    pace = Pace(0.0, 1.0)
    assert pace.next_due(0.25) == 0.25
    assert pace.next_due(0.75) == 0.75
    assert pace.next_due(1.0) is None
    assert pace.unsent == 0


def test_requests_that_were_due_and_never_sent_are_counted() -> None:
    pace = Pace(0.0, 1.0, 0.125, 0.0625)
    assert pace.next_due(0.0) == 0.0625
    assert pace.next_due(1.5) is None
    assert pace.unsent == 7


@given(st.integers(0, 3000), st.integers(1, 2000), st.integers(1, 2000))
def test_a_search_finds_the_largest_number_that_holds(limit: int, start: int, most: int) -> None:
    search = Search(start, most)
    tried: list[int] = []
    while (number := search.next) is not None:
        tried.append(number)
        search.tell(number <= limit)
    assert search.best == min(limit, most)
    assert len(tried) == len(set(tried))
    assert all(1 <= number <= most for number in tried)
    assert len(tried) <= 2 * most.bit_length() + 2
