"""Which sessions are expected back, and when, by the pauses they have made."""

from __future__ import annotations

import pytest

from policyserve.engine.habits import Habits


def asks(habits: Habits, session: str, pauses: list[float], at: float = 0.0) -> float:
    """Have a session ask, be answered at once, and pause; returns when it was last answered."""
    now = at
    for pause in [*pauses, 0.0]:
        habits.on_request(session, now)
        habits.on_answer(session, now)
        now += pause
    return now


def test_a_session_is_expected_after_its_usual_pause() -> None:
    habits = Habits()
    now = asks(habits, "robot", [0.02] * 10)
    assert habits.waits(now, bound_s=1.0) == pytest.approx([0.02])
    assert habits.waits(now + 0.015, bound_s=1.0) == pytest.approx([0.005])


def test_one_request_is_no_habit() -> None:
    habits = Habits()
    now = asks(habits, "robot", [])
    assert habits.waits(now, bound_s=1.0) == []


def test_who_is_not_back_within_the_bound_is_not_waited_for() -> None:
    habits = Habits()
    now = asks(habits, "robot", [0.02] * 10)
    assert habits.waits(now, bound_s=0.01) == []


def test_who_is_overdue_is_expected_no_more() -> None:
    habits = Habits()
    now = asks(habits, "robot", [0.02] * 10)
    assert habits.waits(now + 0.1, bound_s=1.0) == []


def test_who_comes_at_any_time_is_not_expected() -> None:
    habits = Habits()
    now = asks(habits, "person", [0.01, 3.0, 0.02, 5.0, 0.01])
    assert habits.waits(now, bound_s=0.5) == []


def test_who_asks_or_has_gone_is_not_away() -> None:
    habits = Habits()
    now = asks(habits, "robot", [0.02] * 10)
    habits.on_request("robot", now)
    assert habits.waits(now, bound_s=1.0) == []
    habits.on_answer("robot", now)
    assert len(habits.waits(now, bound_s=1.0)) == 1
    habits.forget("robot")
    assert habits.waits(now, bound_s=1.0) == []


def test_the_next_to_come_is_first() -> None:
    habits = Habits()
    for session, pause in (("slow", 0.3), ("quick", 0.1)):
        asks(habits, session, [pause] * 10, at=10.0 - 10 * pause)
    assert habits.waits(10.0, bound_s=1.0) == pytest.approx([0.1, 0.3])


def test_a_new_pace_is_learned_in_a_few_requests() -> None:
    habits = Habits()
    now = asks(habits, "robot", [0.02] * 10 + [0.1] * 30)
    assert habits.waits(now, bound_s=1.0) == pytest.approx([0.1], rel=0.05)


def test_one_long_pause_among_many_usual_ones_changes_nothing() -> None:
    """An episode is reset: without this, the session would be expected no more for some twenty requests."""
    habits = Habits()
    now = asks(habits, "simulator", [0.02] * 10 + [3.0])
    assert habits.waits(now, bound_s=1.0) == pytest.approx([0.02])


def test_two_long_pauses_are_a_new_pace() -> None:
    habits = Habits()
    now = asks(habits, "simulator", [0.02] * 10 + [3.0, 3.0])
    assert habits.waits(now, bound_s=0.5) == []
