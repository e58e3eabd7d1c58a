"""Predicts when each session will ask again, from its own recent pauses. Pure: seconds on any monotonic clock.

A pause is the time from an answer to the session's next request: some tenths of a millisecond for a simulator, the
control period for a robot, anything for a person. Its mean and deviation tell them apart. One long pause among many
usual ones, while an episode is reset say, changes neither.
"""

from __future__ import annotations

from collections.abc import Hashable

_WEIGHT = 0.2  # of the newest pause: some five requests make a habit
_LATE = 3.0  # deviations after which a session is no longer expected
_STEADY = 8  # requests in time, after which a late one is an exception
_LATE_FLOOR_S = 1e-4  # equal pauses have a deviation of 0, which would leave no room for the clock's noise


class _Habit:
    """One session's pauses between an answer and the next request."""

    __slots__ = ("answered_at", "deviation", "in_time", "mean")

    def __init__(self) -> None:
        self.answered_at: float | None = None  # None while its request waits or runs
        self.mean: float | None = None  # None until the first pause
        self.deviation = 0.0
        self.in_time = 0  # requests since the last that was late

    @property
    def lateness(self) -> float:
        """How long after its mean a request is late."""
        return _LATE * self.deviation + _LATE_FLOOR_S


class Habits:
    """The pauses of all sessions."""

    def __init__(self) -> None:
        self._habits: dict[Hashable, _Habit] = {}

    def on_request(self, session: Hashable, now: float) -> None:
        """A session's request arrived."""
        habit = self._habits.get(session)
        if habit is None:
            habit = self._habits[session] = _Habit()
        if habit.answered_at is not None:
            _learn(habit, now - habit.answered_at)
            habit.answered_at = None

    def on_answer(self, session: Hashable, now: float) -> None:
        """A session's answer is ready and nothing more of it waits."""
        if session in self._habits:
            self._habits[session].answered_at = now

    def forget(self, session: Hashable) -> None:
        """A session is gone."""
        self._habits.pop(session, None)

    def waits(self, now: float, bound_s: float) -> list[float]:
        """How many seconds from now each session that is expected within bound_s will ask, soonest first.

        Left out: sessions that are overdue, and erratic ones, whose deviation is above the bound.
        """
        found: list[float] = []
        for habit in self._habits.values():
            if habit.answered_at is None or habit.mean is None or habit.deviation > bound_s:
                continue
            wait = habit.answered_at + habit.mean + habit.deviation - now
            if -habit.lateness < wait < bound_s:
                found.append(max(wait, 0.0))
        return sorted(found)


def _learn(habit: _Habit, pause: float) -> None:
    if habit.mean is None:
        habit.mean = pause
        return
    error = pause - habit.mean
    is_steady = habit.in_time >= _STEADY
    habit.in_time = habit.in_time + 1 if error < habit.lateness else 0
    if is_steady and not habit.in_time:
        return  # an exception; the next late one would be a new pace
    habit.mean += _WEIGHT * error
    habit.deviation += _WEIGHT * (abs(error) - habit.deviation)
