"""Joins the batcher to a runner: takes requests of all sessions, and hands each outcome back by a callback.

It is a callback and not a future, since a future would cost each request a task and a turn of the loop. Everything
here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from policyserve.core.effects import Outcome
from policyserve.core.errors import DeadlineExceeded, Overloaded, PolicyserveError
from policyserve.core.log import Log
from policyserve.core.observer import Observers
from policyserve.engine.answering import Task
from policyserve.engine.batcher import Batcher, Job
from policyserve.engine.engine import OnOutcome, Waiting, deliver
from policyserve.engine.inline import HasInline, InlineRequests
from policyserve.engine.runner import OnDone

log = Log(__name__)


class StartedRunner(HasInline, Protocol):
    """What a scheduler needs of a runner, or of what looks after one."""

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None: ...
    def take_back(self, session: Hashable) -> None: ...
    def forget(self, session: Hashable) -> None: ...


class Scheduler:
    """Feeds a started runner. request_timeout_s: from a request's arrival to its answer.

    on_hang: told why, when a batch has run for that long; its requests have been answered by then, and what the runner
    still says of them goes nowhere. It replaces the runner, with hold() and resume(). None: the batch is waited for.
    why_late: asked at a deadline why no policy is at what the runner was given, or will be next; empty where one is.
    """

    def __init__(
        self,
        runner: StartedRunner,
        batcher: Batcher,
        request_timeout_s: float,
        observers: Observers,
        on_hang: Callable[[str], None] | None = None,
        why_late: Callable[[], str] = lambda: "",
    ) -> None:
        self._runner = runner
        self._batcher = batcher
        self._request_timeout_s = request_timeout_s
        self._observers = observers
        self._on_hang = on_hang
        self._why_late = why_late
        self._is_held = False
        self._inline = InlineRequests(runner, batcher, observers, self._queue_or_tell)
        self._running: _Batch | None = None
        self._ahead: _Batch | None = None  # what the runner starts next, without waiting for the event loop
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None  # for deadlines
        self._gathering: asyncio.TimerHandle | None = None  # for a batch that waits to be fuller
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """Queue a request; `on_outcome` is called exactly once, unless its session is forgotten before.

        arrived_at: on time.monotonic's clock. Raises Overloaded if too many wait, or it would wait too long.
        """
        if not self._inline.submit(task, arrived_at, on_outcome):
            self._queue(_Call(task, on_outcome), arrived_at)

    def forget(self, session: Hashable) -> None:
        """Drop a session's waiting requests and its policy state; the answer that is under way goes nowhere."""
        self._inline.forget(session)
        self._batcher.cancel(session)
        self._runner.forget(session)
        self._note_idle()

    @property
    def max_batch(self) -> int:
        """Requests in one batch, at most."""
        return self._batcher.max_batch

    @property
    def is_held(self) -> bool:
        """Whether requests wait for hold()'s end."""
        return self._is_held

    @property
    def is_working(self) -> bool:
        """Whether the runner has a batch."""
        return self._running is not None

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        return self._batcher.queued + self._batcher.running + len(self._inline.waiting)

    def hold(self) -> None:
        """Start no batch until resume(): there is no policy to answer it. Requests wait, up to their deadlines."""
        self._is_held = True
        if self._ahead is not None:
            self._ahead = None
            self._batcher.put_back()

    def resume(self, max_batch: int | None = None) -> None:
        """The policy is there again. max_batch: what it takes now; None: as before."""
        self._is_held = False
        if max_batch is not None:
            self._batcher.limit(max_batch)
        self._start_batch()

    def withdraw(self, session: Hashable) -> list[Waiting]:
        """Take out a session's waiting requests, in their order, for another scheduler."""
        withdrawn: list[Waiting] = []
        for job in self._batcher.cancel(session):
            call: _Call = job.payload
            withdrawn.append((call.task, job.arrived_at, call.on_outcome))
        self._note_idle()
        return withdrawn

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        self._inline.end_turn()
        await self._idle.wait()

    def close(self) -> None:
        """Let go of the event loop's timers, which would keep all this for as long as a request may take."""
        for timer in (self._alarm, self._gathering):
            if timer is not None:
                timer.cancel()

    def _queue(self, call: _Call, arrived_at: float) -> None:
        deadline = arrived_at + self._request_timeout_s
        self._batcher.add(Job(call.task.session, arrived_at, deadline, call))
        self._idle.clear()
        self._start_batch()
        if self._alarm is None:
            self._set_alarm()

    def _queue_or_tell(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        call = _Call(task, on_outcome)
        try:
            self._queue(call, arrived_at)
        except PolicyserveError as error:
            call.tell(error)

    def _start_batch(self) -> None:
        if self._is_held:
            return
        now = time.monotonic()
        if jobs := self._batcher.take(now):
            self._running = self._hand_over(jobs, now)
            self._tell_started(self._running)
        elif self._gathering is None and self._batcher.start_at is not None:
            self._gathering = self._loop.call_later(self._batcher.start_at - now, self._end_gathering)
        if jobs := self._batcher.take_ahead(now):
            self._ahead = self._hand_over(jobs, now)
        self._refuse_stale(now)

    def _hand_over(self, jobs: list[Job], now: float) -> _Batch:
        batch = _Batch(jobs, now)
        self._runner.infer([job.payload.task for job in jobs], lambda outcomes: self._end_batch(batch, outcomes))
        return batch

    def _refuse_stale(self, now: float) -> None:
        for job in self._batcher.stale():
            call: _Call = job.payload
            waited_ms = (now - job.arrived_at) * 1e3
            call.tell(Overloaded(f"waited {waited_ms:.0f} ms, and newer requests of this session wait behind it"))

    def _end_gathering(self) -> None:
        self._gathering = None
        self._start_batch()

    def _end_batch(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        if batch is not self._running:
            log.debug("a batch that was given up has ended after all")
            return
        now = time.monotonic()
        for tell in self._observers.batch_ended:
            tell(len(batch.jobs), now - batch.started_at)
        self._running, self._ahead = self._ahead, None
        if self._running is not None:
            self._running.started_at = now
            self._tell_started(self._running)
        self._batcher.done(now)
        self._start_batch()  # before the replies are written: the policy works while we do
        for job, outcome in zip(batch.jobs, outcomes, strict=True):
            job.payload.tell(outcome)
        self._note_idle()

    def _tell_started(self, batch: _Batch) -> None:
        for tell in self._observers.batch_started:
            tell([job.session for job in batch.jobs], batch.started_at)

    def _set_alarm(self) -> None:
        now = time.monotonic()
        times = [
            self._batcher.wake_at(now),
            self._running and self._running.wake_at(self._request_timeout_s),
            self._ahead and self._ahead.deadline,
        ]
        wake_at = min((at for at in times if at is not None), default=None)
        self._alarm = None if wake_at is None else self._loop.call_later(wake_at - now, self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        for job in self._batcher.expire(now):
            self._tell_late(job, "the policy is being replaced" if self._is_held else self._why_late())
        for batch in (self._running, self._ahead):
            for job in batch.take_late(now) if batch is not None else ():
                self._tell_late(
                    job, self._why_late() or ("the policy is still at it" if batch is self._running else "")
                )
                self._runner.take_back(job.session)  # what it is answered after all, the session never hears
        if self._running is not None and now >= self._running.started_at + self._request_timeout_s:
            self._give_up()
        self._set_alarm()
        self._note_idle()

    def _tell_late(self, job: Job, why: str) -> None:
        told = f"no answer within {self._request_timeout_s:g} s"
        job.payload.tell(DeadlineExceeded(f"{told}; {why}" if why else told))

    def _give_up(self) -> None:
        """The running batch hangs: nobody waits for it any more."""
        assert self._running is not None
        self._running.is_given_up = True
        if self._on_hang is None:
            return
        count, self._running = len(self._running.jobs), None
        for tell in self._observers.batch_ended:
            tell(count, self._request_timeout_s)
        self._on_hang(f"a batch of {count} has been running for {self._request_timeout_s:g} s")
        self._batcher.done(time.monotonic())
        self._start_batch()

    def _note_idle(self) -> None:
        if not (self._batcher.queued or self._batcher.running):
            self._idle.set()


class _Batch:
    """The jobs that the runner works on."""

    __slots__ = ("_in_time", "is_given_up", "jobs", "started_at")

    def __init__(self, jobs: list[Job], started_at: float) -> None:
        self.jobs = jobs
        self.started_at = started_at
        self.is_given_up = False
        self._in_time = jobs  # those whose deadline has not passed

    def wake_at(self, timeout_s: float) -> float | None:
        """When the next deadline passes, or the batch itself has taken too long."""
        if self.is_given_up:
            return None
        return self.started_at + timeout_s if self.deadline is None else self.deadline

    @property
    def deadline(self) -> float | None:
        """The next that passes, None after the last."""
        return min((job.deadline for job in self._in_time), default=None)

    def take_late(self, now: float) -> list[Job]:
        """The jobs whose deadline has passed since the last call."""
        late = [job for job in self._in_time if job.deadline <= now]
        if late:
            self._in_time = [job for job in self._in_time if job.deadline > now]
        return late


class _Call:
    """A task and where its one outcome goes."""

    __slots__ = ("is_told", "on_outcome", "task")

    def __init__(self, task: Task, on_outcome: OnOutcome) -> None:
        self.task = task
        self.on_outcome = on_outcome
        self.is_told = False

    def tell(self, outcome: Outcome) -> None:
        if self.is_told:
            return  # its deadline passed before
        self.is_told = True
        deliver(self.on_outcome, outcome, self.task.session)
