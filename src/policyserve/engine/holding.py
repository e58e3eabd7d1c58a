"""Requests that wait while there is no policy to answer them, up to their deadlines."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from policyserve.core.observer import Observers
from policyserve.engine.answering import Task
from policyserve.engine.batcher import Batcher
from policyserve.engine.engine import OnOutcome, Waiting
from policyserve.engine.inline import InlinePolicy
from policyserve.engine.runner import OnDone
from policyserve.engine.scheduler import Scheduler


class HeldRequests:
    """Keeps at most max_queue requests, each for request_timeout_s from its arrival, until somebody takes them."""

    def __init__(self, request_timeout_s: float, max_queue: int, observers: Observers) -> None:
        self._scheduler = Scheduler(_NoRunner(), Batcher(1, max_queue), request_timeout_s, observers)
        self._scheduler.hold()
        self._sessions: dict[Hashable, None] = {}

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        return self._scheduler.load

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """See Engine: raises Overloaded."""
        self._scheduler.submit(task, arrived_at, on_outcome)
        self._sessions[task.session] = None

    def forget(self, session: Hashable) -> None:
        """See Engine."""
        self._scheduler.forget(session)
        self._sessions.pop(session, None)

    def take(self) -> list[Waiting]:
        """Take all out, in the order of their coming."""
        waiting = [one for session in self._sessions for one in self._scheduler.withdraw(session)]
        self._sessions.clear()
        self._scheduler.close()
        return sorted(waiting, key=lambda one: one[1])

    async def drained(self) -> None:
        """Wait until none is left."""
        await self._scheduler.drained()


class _NoRunner:
    """Where a runner would be."""

    inline: InlinePolicy | None = None

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        """Never called: a scheduler that is held starts no batch."""

    def take_back(self, session: Hashable) -> None:
        """It has none."""

    def forget(self, session: Hashable) -> None:
        """It knows none."""
