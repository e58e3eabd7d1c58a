"""When a row's time is over, at loops of every speed, and clocks that jump."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyserve.realtime.cadence import Cadence, ForwardClock

PERIOD_S = 0.02


def taken(times: list[float]) -> list[int]:
    """At which calls a row is taken."""
    cadence, found = Cadence(PERIOD_S), []
    for number, now in enumerate(times):
        if cadence.is_time(now):
            cadence.begin(now)
            found.append(number)
    return found


def test_a_loop_at_the_rows_own_rate_takes_one_each_time_though_it_jitters() -> None:
    random = np.random.default_rng(0)
    times = (np.arange(500) * PERIOD_S + random.uniform(-0.004, 0.004, 500)).tolist()
    assert taken(times) == list(range(500))


@pytest.mark.parametrize("factor", [2, 3, 10, 20])
def test_a_quicker_loop_takes_one_in_so_many(factor: int) -> None:
    found = taken([number * PERIOD_S / factor for number in range(200)])
    assert set(np.diff(found[1:])) == {factor}


def test_a_loop_that_does_not_fit_keeps_the_rows_rate() -> None:
    found = taken([number / 70 for number in range(700)])
    assert len(found) == pytest.approx(500, abs=2)


def test_a_slower_loop_takes_one_each_time_and_leaves_none_out() -> None:
    assert taken([number / 30 for number in range(90)]) == list(range(90))


def test_after_a_pause_rows_do_not_come_in_a_burst() -> None:
    times = [0.0, 0.02, 0.04, *(1.0 + number * 0.004 for number in range(20))]
    assert set(np.diff(taken(times)[4:])) == {5}


def test_how_much_of_a_rows_time_is_over() -> None:
    cadence = Cadence(PERIOD_S)
    cadence.begin(1.0)
    assert [cadence.fraction(1.0 + part) for part in (-1, 0, 0.005, 0.02, 9)] == pytest.approx([0, 0, 0.25, 1, 1])


def test_time_never_goes_back() -> None:
    clock = ForwardClock(PERIOD_S)
    assert [clock.at(now) for now in (5.0, 5.1, 5.095, 5.2)] == [5.0, 5.1, 5.1, 5.2]
    assert clock.at(math.nan) == 5.2
    assert clock.at(1.0) == 5.2
    assert clock.at(1.5) == pytest.approx(5.7), "it goes on from where it was"


def test_a_clock_may_begin_with_nonsense() -> None:
    assert ForwardClock(PERIOD_S).at(math.inf) == 0.0
