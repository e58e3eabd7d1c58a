"""Which requests go to the policy next, and when. Pure: time is an argument, seconds on any monotonic clock.

What must stay true, and is property-tested:
- nothing is lost or doubled: every job that add() accepts comes out once, of take(), cancel() or expire();
- one session's jobs come out in the order they went in, and never two at once;
- at most max_batch jobs run at once, and only one batch;
- a lone session never waits: while nothing runs and nobody else is expected, take() gives what is there;
- a free runner waits only for sessions that are expected back soon enough to be worth it, never longer than max_wait_s;
- fair: whoever was served goes to the end of the line, so a session that pipelines holds nobody up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from policyserve.core.errors import Overloaded
from policyserve.core.habits import Habits

_COST_WEIGHT = 0.2  # of the newest batch in the running mean
_LONGEST_WAIT_S = 5e-3


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request waiting for the policy. deadline: when its answer is no longer wanted."""

    session: Hashable
    arrived_at: float
    deadline: float
    payload: Any


class Batcher:
    """A queue per session, and a line of the sessions whose next job may start.

    max_wait_s: the longest that a free runner is kept waiting for a fuller batch; 0: it never is; None: a tenth of what
    a batch has been taking, at most 5 ms.
    """

    def __init__(self, max_batch: int, max_queue: int, max_wait_s: float | None = 0.0) -> None:
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._habits = Habits()
        self._cost_s: float | None = None  # of a batch, a running mean
        self._started_at = 0.0
        self._waiting_since: float | None = None  # the runner is free, and something waits
        self._start_at: float | None = None  # when the batch that is gathered starts at the latest
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
        self._habits.asked(job.session, job.arrived_at)

    def take(self, now: float) -> list[Job]:
        """Start the next batch: at most max_batch jobs of as many sessions.

        Empty while one runs, while nothing waits, and while it is worth waiting for more: then call again at wake_at().
        """
        if self._running or not self._line or self._gathers(now):
            return []
        self._waiting_since = self._start_at = None
        self._started_at = now
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
        if ended:
            took = now - self._started_at
            self._cost_s = took if self._cost_s is None else self._cost_s + _COST_WEIGHT * (took - self._cost_s)
        for job in ended:
            if job.session in self._waiting:
                self._line.append(job.session)
            else:
                self._habits.answered(job.session, now)

    def cancel(self, session: Hashable) -> list[Job]:
        """Forget a session and take out its waiting jobs (one that runs already is not among them)."""
        self._habits.forget(session)
        jobs = self._waiting.pop(session, None)
        if jobs is None:
            return []
        if not self._runs(session):
            self._leave_line(session)
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
                    self._leave_line(job.session)
        return late

    @property
    def start_at(self) -> float | None:
        """When to call take() again at the latest, while it keeps a free runner waiting."""
        return self._start_at

    def wake_at(self, now: float) -> float | None:
        """When to call expire() and take() again, None if nothing waits."""
        deadline = min((job.deadline for jobs in self._waiting.values() for job in jobs), default=None)
        if self._start_at is None or deadline is None:
            return deadline
        return min(deadline, self._start_at)

    def _gathers(self, now: float) -> bool:
        """Whether a fuller batch is worth the wait: the k-th session that is expected spares its own batch, less the
        wait, and costs each of the n that are here that wait."""
        if self._waiting_since is None:
            self._waiting_since = now
        bound = self._bound_s() - (now - self._waiting_since)
        room = self._max_batch - len(self._line)
        if self._cost_s is None or bound <= 0 or room <= 0:
            return False
        best_gain, best_wait = 0.0, None
        for k, wait in enumerate(self._habits.waits(now, bound)[:room], start=1):
            gain = k * (self._cost_s - wait) - len(self._line) * wait
            if gain > best_gain:
                best_gain, best_wait = gain, wait
        self._start_at = None if best_wait is None else now + best_wait
        return best_wait is not None

    def _bound_s(self) -> float:
        if self._max_wait_s is not None:
            return self._max_wait_s
        return min((self._cost_s or 0.0) / 10, _LONGEST_WAIT_S)

    def _leave_line(self, session: Hashable) -> None:
        self._line.remove(session)
        if not self._line:
            self._waiting_since = self._start_at = None

    def _runs(self, session: Hashable) -> bool:
        return any(job.session == session for job in self._running)
