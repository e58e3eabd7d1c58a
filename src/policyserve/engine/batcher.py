"""Decides which requests go to the policy next, and when. Pure: time is an argument, seconds on any monotonic clock.

What must stay true, and is property-tested:
- nothing is lost or doubled: every job that add() accepts comes out once, of take(), stale(), cancel() or expire();
- one session's jobs come out in the order they went in, and never two at once;
- at most max_batch jobs run at once, and only one batch; behind it stands at most one more, and only a full one;
- a lone session never waits: while nothing runs and nobody else is expected, take() gives what is there;
- a free runner waits only for sessions that are expected back soon enough to be worth it, never longer than max_wait_s;
- fair: whoever was served goes to the end of the line, so a session that pipelines holds nobody up;
- no stale queue: of a session's several jobs none starts later than max_queue_s and a batch after it came. It is
  refused at once if that can be foretold, which hits first who has most waiting, else passed over for a newer one.
  A session that waits for its answers is refused only what cannot be answered before its deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from typing import Any

from policyserve.core.errors import Overloaded
from policyserve.engine.habits import Habits

_COST_WEIGHT = 0.2  # how much the newest batch counts in the running mean
_LONGEST_WAIT_S = 5e-3
_LONGEST_FIRST_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request waiting for the policy. deadline: when its answer is no longer wanted."""

    session: Hashable
    arrived_at: float
    deadline: float
    payload: Any


class Batcher:
    """A queue per session, and a line of the sessions whose next job may start.

    max_wait_s: the longest that a free runner is kept waiting for a fuller batch; 0: it never is; None: as long
    as a batch has been taking, at most 5 ms. max_queue_s: the longest that a job may wait whose session has others
    here; None: as long as its deadline lets it.
    """

    def __init__(
        self, max_batch: int, max_queue: int, max_wait_s: float | None = 0.0, max_queue_s: float | None = None
    ) -> None:
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_queue_s = inf if max_queue_s is None else max_queue_s
        self._habits = Habits()
        self._cost_s: float | None = None  # of a batch, a running mean
        self._took_s = (inf, inf)  # by the two batches before
        self._started_at = 0.0
        self._waiting_since: float | None = None  # the runner is free, and something waits
        self._start_at: float | None = None  # when the batch that is gathered starts at the latest
        self._start_count = 0  # and how many sessions are expected to be here by then
        self._max_queue = max_queue
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._line: deque[Hashable] = deque()
        self._running: list[Job] = []
        self._ahead: list[Job] = []  # the batch that the runner has already, behind the one that runs
        self._served: set[Hashable] = set()  # whose jobs run, or stand behind those
        self._stale: list[Job] = []
        self._queued = 0

    @property
    def max_batch(self) -> int:
        """Jobs in one batch, at most."""
        return self._max_batch

    def limit(self, max_batch: int) -> None:
        """Take at most this many jobs from the next batch on: a policy that was replaced may have less memory."""
        self._max_batch = max_batch

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return self._queued

    @property
    def running(self) -> int:
        """Jobs that the runner has: in the batch that runs now, and in the one behind it."""
        return len(self._running) + len(self._ahead)

    def add(self, job: Job) -> None:
        """Queue a job; raises Overloaded, which tells when to ask again, if it has no room or would wait too long."""
        jobs = self._waiting.get(job.session)
        if self._queued:
            self._check_room(job, 0 if jobs is None else len(jobs))
        if jobs is None:
            jobs = self._waiting[job.session] = deque()
            if job.session not in self._served:
                self._line.append(job.session)
        jobs.append(job)
        self._queued += 1
        self._habits.on_request(job.session, job.arrived_at)

    def take(self, now: float) -> list[Job]:
        """Start the next batch: at most max_batch jobs of as many sessions.

        Empty while one runs, while nothing waits, and while it is worth waiting for more: then call again at wake_at().
        """
        if self._running or not self._line or self._gathers(now):
            return []
        self._waiting_since = self._start_at = None
        self._started_at = now
        self._running = self._next_batch(now)
        return list(self._running)

    def take_ahead(self, now: float) -> list[Job]:
        """The batch after the one that runs, if it is full already: nobody who comes later could join it.

        The runner then starts it without asking; done() is called for each. put_back() undoes it. Never for a policy
        that takes one at a time: what waits for it can still be cancelled, and is no slower for it.
        """
        if self._max_batch == 1 or len(self._line) < self._max_batch or self._ahead or not self._running:
            return []
        self._ahead = self._next_batch(now)
        return list(self._ahead)

    def put_back(self) -> None:
        """The runner will not come to the batch behind the running one: its jobs are the first of the line again."""
        ahead, self._ahead = self._ahead, []
        for job in reversed(ahead):
            self._waiting.setdefault(job.session, deque()).appendleft(job)
            self._line.appendleft(job.session)
            self._served.discard(job.session)
            self._queued += 1

    def stale(self) -> list[Job]:
        """Take out the jobs that take() passed over: they had waited too long, and a newer one of their session ran."""
        stale, self._stale = self._stale, []
        return stale

    def done(self, now: float) -> None:
        """The running batch has ended: its sessions may go to the end of the line."""
        ended, self._running, self._ahead = self._running, self._ahead, []
        self._served = {job.session for job in self._running}
        if ended:
            self._learn_cost(now - self._started_at)
        self._started_at = now  # of the batch behind, if there was one
        for job in ended:
            if job.session in self._waiting:
                self._line.append(job.session)
            else:
                self._habits.on_answer(job.session, now)

    def cancel(self, session: Hashable) -> list[Job]:
        """Forget a session and take out its waiting jobs (one that runs already is not among them)."""
        self._habits.forget(session)
        jobs = self._waiting.pop(session, None)
        if jobs is None:
            return []
        if session not in self._served:
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
                if job.session not in self._served:
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

    def _next_batch(self, now: float) -> list[Job]:
        batch: list[Job] = []
        while self._line and len(batch) < self._max_batch:
            session = self._line.popleft()
            jobs = self._waiting[session]
            if len(jobs) > 1:
                self._pass_over(jobs, now)
            batch.append(jobs.popleft())
            self._served.add(session)
            self._queued -= 1
            if not jobs:
                del self._waiting[session]
        return batch

    def _check_room(self, job: Job, own: int) -> None:
        """Raise Overloaded if a job must not join `own` others of its session.

        A session may have as many waiting as there are places left: however many pipeline, some places stay free, and
        whoever has fewest waiting gets them.
        """
        if own >= self._max_queue - self._queued:
            most = f"{self._queued} requests wait already, {own} of this session; this server keeps {self._max_queue}"
            raise Overloaded(most, None if self._cost_s is None else self._rest_s(job.arrived_at) * 1e3)
        batches = self._batches_before(own)
        if self._cost_s is None or not batches:
            return
        if self._took_s[0] == inf and self._cost_s > _LONGEST_FIRST_S:
            return  # the only batch so far took very long, as one that compiles does: it foretells nothing
        wait_s = self._rest_s(job.arrived_at) + batches * self._cost_s
        bound_s = max(job.deadline - job.arrived_at - self._cost_s, 0.0)
        if own or job.session in self._served:
            bound_s = min(bound_s, self._max_queue_s)
        if wait_s > bound_s:
            told = f"this request would wait {wait_s * 1e3:.0f} ms, {bound_s * 1e3:.0f} ms at most are allowed"
            raise Overloaded(told, max(wait_s - bound_s, self._cost_s) * 1e3)

    def _batches_before(self, own: int) -> int:
        """How many batches start before a job that has `own` of its session before it.

        Sessions take turns, and no two jobs of one run at once. Assumes that every waiting session asks again, which
        holds under overload.
        """
        others = len(self._waiting) - (own > 0)
        return max(own, (own + others * (own + 1)) // self._max_batch)

    def _rest_s(self, now: float) -> float:
        """How long what the runner has will still take."""
        if not self._running or self._cost_s is None:
            return 0.0
        behind_s = self._cost_s if self._ahead else 0.0
        return max(self._cost_s - (now - self._started_at), 0.0) + behind_s

    def _pass_over(self, jobs: deque[Job], now: float) -> None:
        """Leave out accepted jobs that have waited too long: others came since, or the policy has become slower."""
        if self._cost_s is None:
            return
        oldest = now - self._max_queue_s - self._cost_s
        while len(jobs) > 1 and jobs[0].arrived_at < oldest:
            self._stale.append(jobs.popleft())
            self._queued -= 1

    def _learn_cost(self, took_s: float) -> None:
        """Add the median of the last three to the mean, so that one batch that hung, or compiled, does not count."""
        before_s, last_s = self._took_s
        self._took_s = (last_s, took_s)
        low, high = (before_s, last_s) if before_s < last_s else (last_s, before_s)
        usual_s = low if took_s < low else min(took_s, high)
        if self._cost_s is None or before_s == inf:
            self._cost_s = took_s if last_s == inf else min(took_s, last_s)
        else:
            self._cost_s += _COST_WEIGHT * (usual_s - self._cost_s)

    def _gathers(self, now: float) -> bool:
        """Whether a fuller batch is worth the wait.

        Waiting w for the k-th expected session gains k·(cost − w) − n·w, n being the sessions that are here. Waits for
        the k that gains most, if any does.
        """
        if self._start_at is not None and now < self._start_at and len(self._line) < self._start_count:
            return True  # decided already; looking at all habits again for each new request would cost too much
        if self._waiting_since is None:
            self._waiting_since = now
        bound = self._bound_s() - (now - self._waiting_since)
        room = self._max_batch - len(self._line)
        if self._cost_s is None or bound <= 0 or room <= 0:
            return False
        best_gain, best_wait, best_k = 0.0, None, 0
        for k, wait in enumerate(self._habits.waits(now, bound)[:room], start=1):
            gain = k * (self._cost_s - wait) - len(self._line) * wait
            if gain > best_gain:
                best_gain, best_wait, best_k = gain, wait, k
        if best_wait is None:
            self._start_at = None
            return False
        self._start_at, self._start_count = now + best_wait, len(self._line) + best_k
        return True

    def _bound_s(self) -> float:
        if self._max_wait_s is not None:
            return self._max_wait_s
        return min(self._cost_s or 0.0, _LONGEST_WAIT_S)

    def _leave_line(self, session: Hashable) -> None:
        self._line.remove(session)
        if not self._line:
            self._waiting_since = self._start_at = None
