"""Which requests go to the policy next, and when. Pure: time is an argument, seconds on any monotonic clock.

What must stay true, and is property-tested:
- nothing is lost or doubled: every job that add() accepts comes out once, of take(), cancel() or expire();
- one session's jobs come out in the order they went in, and never two at once;
- at most max_batch jobs run at once, and only one batch;
- a lone session never waits: while nothing runs, take() gives what is there;
- fair: whoever was served goes to the end of the line, so a session that pipelines holds nobody up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from policyserve.core.errors import Overloaded


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request waiting for the policy. deadline: when its answer is no longer wanted."""

    session: Hashable
    arrived_at: float
    deadline: float
    payload: Any


class Batcher:
    """A queue per session, and a line of the sessions whose next job may start."""

    def __init__(self, max_batch: int, max_queue: int) -> None:
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._line: deque[Hashable] = deque()
        self._running: list[Job] = []
        self._queued = 0

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return self._queued

    @property
    def running(self) -> int:
        """Jobs in the batch that runs now."""
        return len(self._running)

    def add(self, job: Job) -> None:
        """Queue a job; raises Overloaded if max_queue wait already."""
        if self._queued >= self._max_queue:
            raise Overloaded(f"{self._queued} requests wait already, the most this server keeps; send again later")
        jobs = self._waiting.get(job.session)
        if jobs is None:
            jobs = self._waiting[job.session] = deque()
            if not self._runs(job.session):
                self._line.append(job.session)
        jobs.append(job)
        self._queued += 1

    def take(self, now: float) -> list[Job]:
        """Start the next batch: at most max_batch jobs of as many sessions; empty while one runs or nothing waits."""
        if self._running:
            return []
        while self._line and len(self._running) < self._max_batch:
            session = self._line.popleft()
            jobs = self._waiting[session]
            self._running.append(jobs.popleft())
            self._queued -= 1
            if not jobs:
                del self._waiting[session]
        return list(self._running)

    def done(self, now: float) -> None:
        """The running batch has ended: its sessions may go to the end of the line."""
        ended, self._running = self._running, []
        self._line.extend(job.session for job in ended if job.session in self._waiting)

    def cancel(self, session: Hashable) -> list[Job]:
        """Take out a session's waiting jobs (one that runs already is not among them)."""
        jobs = self._waiting.pop(session, None)
        if jobs is None:
            return []
        if not self._runs(session):
            self._line.remove(session)
        self._queued -= len(jobs)
        return list(jobs)

    def expire(self, now: float) -> list[Job]:
        """Take out the waiting jobs whose deadline has passed."""
        late = [job for jobs in self._waiting.values() for job in jobs if job.deadline <= now]
        for job in late:
            jobs = self._waiting[job.session]
            jobs.remove(job)
            self._queued -= 1
            if not jobs:
                del self._waiting[job.session]
                if not self._runs(job.session):
                    self._line.remove(job.session)
        return late

    def wake_at(self, now: float) -> float | None:
        """When to call expire(): the earliest deadline of a waiting job, None if nothing waits."""
        return min((job.deadline for jobs in self._waiting.values() for job in jobs), default=None)

    def _runs(self, session: Hashable) -> bool:
        return any(job.session == session for job in self._running)
