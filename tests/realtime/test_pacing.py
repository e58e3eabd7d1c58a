"""When to ask, how long to wait."""

from __future__ import annotations

import math

import pytest

from policyserve.realtime.pacing import BackOff, Latencies, delay_steps, is_due


def test_the_longest_of_the_last_twenty_is_expected_and_then_forgotten() -> None:
    latencies = Latencies()
    assert (latencies.longest_s, latencies.told()) == (0.0, (0.0, 0.0, 0.0))
    latencies.add(0.9)
    for _ in range(19):
        latencies.add(0.1)
    assert latencies.longest_s == 0.9
    latencies.add(0.1)
    assert latencies.longest_s == 0.1
    assert latencies.told() == (0.1, 0.9, 0.9)


def test_times_that_are_none_are_left_out() -> None:
    latencies = Latencies()
    for seconds in (math.nan, math.inf, -1.0):
        latencies.add(seconds)
    assert latencies.longest_s == 0


def test_a_new_session_knows_what_the_one_before_took_until_it_has_answered() -> None:
    latencies = Latencies()
    latencies.add(0.3)
    latencies.begin()
    assert latencies.longest_s == 0.3
    latencies.add(0.1)
    assert latencies.longest_s == 0.1
    latencies.begin(is_same_task=False)
    assert latencies.longest_s == 0


def test_an_answer_is_overdue_after_four_times_the_usual_and_half_a_second() -> None:
    latencies = Latencies()
    assert latencies.overdue_s == 0.5
    for _ in range(20):
        latencies.add(0.3)
    assert latencies.overdue_s == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("seconds", "pinned", "steps"), [(0, 0, 0), (0.1, 0, 5), (0.101, 0, 6), (0.1, 1, 6), (0, 1, 1), (1e300, 0, 10**9)]
)
def test_a_delay_is_in_whole_rows(seconds: float, pinned: int, steps: int) -> None:
    assert delay_steps(seconds, 50, pinned) == steps


def test_with_a_horizon_it_is_asked_when_so_many_rows_are_executed_or_few_are_left() -> None:
    assert is_due(None, 0, 50, 5)
    assert [is_due(25, executed, 50 - executed, 5) for executed in (24, 25)] == [False, True]
    assert [is_due(48, executed, 50 - executed, 5) for executed in (42, 43)] == [False, True]


def test_a_short_outage_stays_short_and_a_long_one_is_asked_about_once_a_second() -> None:
    back_off, now, pauses = BackOff(0.02, lambda: 1.0), 0.0, []
    for _ in range(40):
        back_off.lost(now)
        pauses.append(back_off.until - now)
        now = back_off.until
    assert max(pauses[:4]) <= 0.1 + 1e-9, "a server that is back within 0.4 s is found at once"
    assert pauses[-1] == pytest.approx(1.0)
    back_off.over()
    back_off.lost(now)
    assert back_off.until - now == pytest.approx(0.05)


def test_robots_come_back_at_random_times() -> None:
    back_off = BackOff(0.02, lambda: 0.25)
    back_off.lost(1.0)
    assert back_off.until == pytest.approx(1.0 + 0.25 * 0.05)


def test_a_refusal_that_says_when_is_believed_within_reason() -> None:
    back_off = BackOff(0.02, lambda: 1.0)
    back_off.refused(0.0, "queue full; again in 120 ms")
    assert back_off.until == pytest.approx(0.12)
    back_off.refused(0.0, "again in 999999999 ms")
    assert back_off.until == 60
