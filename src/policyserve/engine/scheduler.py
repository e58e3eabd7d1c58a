"""Joins the batcher to a runner: requests of all sessions in, each session's outcomes back by callback.

A callback and not a future per request: a request then costs no task and no turn of the loop. Everything here runs in
the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

from policyserve.core.batcher import Batcher, Job
from policyserve.core.errors import DeadlineExceeded
from policyserve.core.session import Outcome
from policyserve.engine.runner import Runner, Task

OnOutcome: TypeAlias = Callable[[Outcome], None]


class Scheduler:
    """Feeds a started runner. request_timeout_s: from a request's arrival to its answer."""

    def __init__(self, runner: Runner, batcher: Batcher, request_timeout_s: float) -> None:
        self._runner = runner
        self._batcher = batcher
        self._request_timeout_s = request_timeout_s
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
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
        jobs = self._batcher.take(time.monotonic())
        if jobs:
            calls: list[_Call] = [job.payload for job in jobs]
            self._runner.infer([call.task for call in calls], lambda outcomes: self._end_batch(calls, outcomes))

    def _end_batch(self, calls: Sequence[_Call], outcomes: Sequence[Outcome]) -> None:
        self._batcher.done(time.monotonic())
        self._start_batch()  # before the replies are written: the policy works while we do
        for call, outcome in zip(calls, outcomes, strict=True):
            call.on_outcome(outcome)
        self._note_idle()

    def _set_alarm(self) -> None:
        now = time.monotonic()
        wake_at = self._batcher.wake_at(now)
        self._alarm = None if wake_at is None else self._loop.call_later(wake_at - now, self._expire)

    def _expire(self) -> None:
        for job in self._batcher.expire(time.monotonic()):
            call: _Call = job.payload
            call.on_outcome(DeadlineExceeded(f"no answer within {self._request_timeout_s:g} s"))
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
