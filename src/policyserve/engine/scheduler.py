"""Joins the batcher to a runner: requests of all sessions in, each session's outcomes back by callback.

A callback and not a future per request: a request then costs no task and no turn of the loop. Everything here runs in
the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

from policyserve.core.batcher import Batcher, Job
from policyserve.core.errors import DeadlineExceeded
from policyserve.core.session import Outcome
from policyserve.engine.runner import Runner, Task

log = logging.getLogger(__name__)

OnOutcome: TypeAlias = Callable[[Outcome], None]


class Scheduler:
    """Feeds a started runner. request_timeout_s: from a request's arrival to the start of its batch."""

    def __init__(self, runner: Runner, batcher: Batcher, request_timeout_s: float) -> None:
        self._runner = runner
        self._batcher = batcher
        self._request_timeout_s = request_timeout_s
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None  # for deadlines
        self._gathering: asyncio.TimerHandle | None = None  # for a batch that waits to be fuller
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """Queue a request; `on_outcome` is called exactly once, unless its session is forgotten before.

        arrived_at: on time.monotonic's clock. Raises Overloaded if too many wait.
        """
        deadline = arrived_at + self._request_timeout_s
        self._batcher.add(Job(task.session, arrived_at, deadline, _Call(task, on_outcome)))
        self._idle.clear()
        self._start_batch()
        if self._alarm is None:
            self._set_alarm()

    def forget(self, session: Hashable) -> None:
        """Drop a session's waiting requests and its policy state; the answer that is under way goes nowhere."""
        self._batcher.cancel(session)
        self._runner.forget(session)
        self._note_idle()

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        await self._idle.wait()

    def _start_batch(self) -> None:
        now = time.monotonic()
        jobs = self._batcher.take(now)
        if jobs:
            calls: list[_Call] = [job.payload for job in jobs]
            self._runner.infer([call.task for call in calls], lambda outcomes: self._end_batch(calls, outcomes))
        elif self._gathering is None and self._batcher.start_at is not None:
            self._gathering = self._loop.call_later(self._batcher.start_at - now, self._end_gathering)

    def _end_gathering(self) -> None:
        self._gathering = None
        self._start_batch()

    def _end_batch(self, calls: Sequence[_Call], outcomes: Sequence[Outcome]) -> None:
        self._batcher.done(time.monotonic())
        self._start_batch()  # before the replies are written: the policy works while we do
        for call, outcome in zip(calls, outcomes, strict=True):
            call.tell(outcome)
        self._note_idle()

    def _set_alarm(self) -> None:
        now = time.monotonic()
        wake_at = self._batcher.wake_at(now)
        self._alarm = None if wake_at is None else self._loop.call_later(wake_at - now, self._expire)

    def _expire(self) -> None:
        for job in self._batcher.expire(time.monotonic()):
            call: _Call = job.payload
            call.tell(DeadlineExceeded(f"no answer within {self._request_timeout_s:g} s"))
        self._set_alarm()
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._batcher.queued and not self._batcher.running:
            self._idle.set()


class _Call:
    """A task and where its outcome goes."""

    __slots__ = ("on_outcome", "task")

    def __init__(self, task: Task, on_outcome: OnOutcome) -> None:
        self.task = task
        self.on_outcome = on_outcome

    def tell(self, outcome: Outcome) -> None:
        try:
            self.on_outcome(outcome)
        except Exception:  # a connection's: its trouble must not cost the others of its batch their answers
            log.exception("session %s: an outcome was not delivered", self.task.session)
