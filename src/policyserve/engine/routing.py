"""Distributes the requests of all sessions among several runners of the same policy.

Each request goes to the runner that has the fewest to answer, and of these keeps the fewest sessions' states. What must
stay true: requests of one session never run at once nor out of order, and a session whose policy state one runner keeps
stays with that runner while it lives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import PolicyserveError
from policyserve.engine.answering import Task
from policyserve.engine.scheduler import OnOutcome, Scheduler


class _Route:
    """The scheduler that a session's requests go to. pending: requests without an answer."""

    __slots__ = ("has_state", "pending", "scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.pending = 0
        self.has_state = False


class Router:
    """Takes requests as a scheduler does and gives each to one of several, in the event loop's thread.

    state_travels: a session's policy state goes with its requests, so that any runner can answer the next one.
    """

    def __init__(self, schedulers: Sequence[Scheduler], *, state_travels: bool = False) -> None:
        self._schedulers = list(schedulers)
        self._leaving: list[Scheduler] = []  # that get no more requests, and have not answered all they got
        self._state_travels = state_travels
        self._routes: dict[Hashable, _Route] = {}
        self._residents: Counter[Scheduler] = Counter()  # sessions whose policy state each one keeps

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """As Scheduler.submit."""
        route = self._routes.get(task.session)
        if route is None:
            route = self._routes[task.session] = _Route(self._least_loaded())
        elif not route.pending and (not route.has_state or route.scheduler in self._leaving):
            self._note_state(route, False)
            route.scheduler = self._least_loaded()

        def settle(outcome: Outcome) -> None:
            route.pending -= 1
            if isinstance(outcome, Answered) and self._routes.get(task.session) is route:
                self._note_state(route, outcome.chunk.state is not None and not self._state_travels)
            on_outcome(outcome)

        route.pending += 1
        try:
            route.scheduler.submit(task, arrived_at, settle)
        except PolicyserveError:
            route.pending -= 1
            raise

    def forget(self, session: Hashable) -> None:
        """As Scheduler.forget."""
        route = self._routes.pop(session, None)
        if route is not None:
            self._note_state(route, False)
            route.scheduler.forget(session)

    @property
    def is_working(self) -> bool:
        """Whether any runner has a batch."""
        return any(scheduler.is_working for scheduler in self._all)

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        return sum(scheduler.load for scheduler in self._all)

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        await asyncio.gather(*(scheduler.drained() for scheduler in self._all))

    @property
    def _all(self) -> list[Scheduler]:
        return [*self._schedulers, *self._leaving]

    def add(self, scheduler: Scheduler) -> None:
        """Give requests to one more scheduler."""
        self._schedulers.append(scheduler)

    def remove(self, leaving: Scheduler) -> None:
        """Give a scheduler no more sessions, if it is not the last one; it answers what it has.

        A session that has requests there stays until they are answered. Policy state that does not travel is lost.
        """
        if self._schedulers == [leaving]:
            return
        self._schedulers.remove(leaving)
        self._leaving = [*(one for one in self._leaving if one.load), leaving]

    def move_from(self, lost: Scheduler) -> None:
        """Move what waits at a scheduler that has lost its runner to the others, if any of them has one."""
        for session, route in self._routes.items():
            if route.scheduler is lost:
                self._note_state(route, False)
                self._move(session, route)

    def _move(self, session: Hashable, route: _Route) -> None:
        target = self._least_loaded()
        if target.is_held:
            return
        for task, arrived_at, on_outcome in route.scheduler.withdraw(session):
            route.scheduler = target
            try:
                target.submit(task, arrived_at, on_outcome)
            except PolicyserveError as error:
                on_outcome(error)

    def _note_state(self, route: _Route, has_state: bool) -> None:
        if route.has_state != has_state:
            self._residents[route.scheduler] += 1 if has_state else -1
            route.has_state = has_state

    def _least_loaded(self) -> Scheduler:
        residents = self._residents
        for scheduler in self._schedulers:
            if not scheduler.load and not scheduler.is_held and not residents[scheduler]:
                return scheduler  # the first one that is free, as below: of many most need not be looked at
        return min(self._schedulers, key=lambda one: (one.is_held, one.load, residents[one]))
