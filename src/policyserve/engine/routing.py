"""Requests of all sessions over several runners of the same policy.

Each request goes to the runner that has the fewest to answer. What must stay true: requests of one session never run at
once nor out of order, and a session whose policy state one runner keeps stays with that runner while it lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence

from policyserve.core.errors import PolicyserveError
from policyserve.core.session import Answered, Outcome
from policyserve.engine.answering import Task
from policyserve.engine.scheduler import OnOutcome, Scheduler


class _Seat:
    """Where a session's requests go. pending: those without an answer."""

    __slots__ = ("has_state", "pending", "scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.pending = 0
        self.has_state = False


class Router:
    """Several schedulers as one, in the event loop's thread."""

    def __init__(self, schedulers: Sequence[Scheduler]) -> None:
        self._schedulers = schedulers
        self._seats: dict[Hashable, _Seat] = {}

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """As Scheduler.submit."""
        seat = self._seats.get(task.session)
        if seat is None:
            seat = self._seats[task.session] = _Seat(self._least_loaded())
        elif not seat.pending and not seat.has_state:
            seat.scheduler = self._least_loaded()

        def settle(outcome: Outcome) -> None:
            seat.pending -= 1
            if isinstance(outcome, Answered):
                seat.has_state = outcome.chunk.state is not None
            on_outcome(outcome)

        seat.pending += 1
        try:
            seat.scheduler.submit(task, arrived_at, settle)
        except PolicyserveError:
            seat.pending -= 1
            raise

    def forget(self, session: Hashable) -> None:
        """As Scheduler.forget."""
        seat = self._seats.pop(session, None)
        if seat is not None:
            seat.scheduler.forget(session)

    @property
    def is_working(self) -> bool:
        """Whether any runner has a batch."""
        return any(scheduler.is_working for scheduler in self._schedulers)

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        return sum(scheduler.load for scheduler in self._schedulers)

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        await asyncio.gather(*(scheduler.drained() for scheduler in self._schedulers))

    def vacate(self, lost: Scheduler) -> None:
        """A scheduler is held, its runner gone: what waits there goes to others, if any has a runner."""
        for session, seat in self._seats.items():
            if seat.scheduler is lost:
                seat.has_state = False
                self._move(session, seat)

    def _move(self, session: Hashable, seat: _Seat) -> None:
        target = self._least_loaded()
        if target.is_held:
            return
        for task, arrived_at, on_outcome in seat.scheduler.withdraw(session):
            seat.scheduler = target
            try:
                target.submit(task, arrived_at, on_outcome)
            except PolicyserveError as error:
                on_outcome(error)

    def _least_loaded(self) -> Scheduler:
        return min(self._schedulers, key=lambda scheduler: (scheduler.is_held, scheduler.load))
