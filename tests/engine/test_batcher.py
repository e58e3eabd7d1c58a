"""The batcher against a plain model of it, in any order of events."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policyserve.core.errors import Overloaded
from policyserve.engine.batcher import Batcher, Job

MAX_BATCH = 3
MAX_QUEUE = 8
SESSIONS = st.integers(0, 5)
ENDLESS = 1e9  # seconds of patience


def job(session: object, deadline: float = 1e9, payload: object = None) -> Job:
    return Job(session, 0.0, deadline, payload)  # type: ignore[arg-type]


class BatcherMachine(RuleBasedStateMachine):
    """Every job gets a number; the model is the list of those that wait and of those that run."""

    max_wait_s = 0.0
    max_queue_s: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher(MAX_BATCH, MAX_QUEUE, self.max_wait_s, self.max_queue_s)
        self.now = 0.0
        self.started_at = 0.0
        self.longest_batch_s: float | None = None
        self.waits_since: float | None = None  # a free runner is kept waiting
        self.numbers = 0
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.out: set[int] = set()
        # Fairness: for each session that waits, how often each other was served since it began to wait.
        self.overtaken: dict[object, dict[object, int]] = {}

    def check_wait(self) -> None:
        """The runner is free, something waits, and nothing was started: only for a fuller batch, and not for long."""
        start_at = self.batcher.start_at
        assert start_at is not None
        self.waits_since = self.now if self.waits_since is None else self.waits_since
        assert self.now - self.waits_since < self.max_wait_s
        assert self.now <= start_at <= self.waits_since + self.max_wait_s + 1e-9

    def take_out(self, jobs: list[Job]) -> None:
        for one in jobs:
            assert one.payload not in self.out, "doubled"
            self.out.add(one.payload)
            self.waiting.remove(one)
        for session in list(self.overtaken):
            if not any(one.session == session for one in self.waiting):
                del self.overtaken[session]
        if not self.waiting:
            self.waits_since = None

    def check_refusal(self, session: int, patience: float) -> None:
        """There was room: then it could not start in time, and certainly not in the next batch."""
        assert patience < ENDLESS or (self.max_queue_s is not None and self.has_jobs(session))
        others = {one.session for one in self.waiting}
        assert session in others or len(others) >= MAX_BATCH, "it would have been in the next batch"

    def has_jobs(self, session: int) -> bool:
        return any(one.session == session for one in (*self.waiting, *self.running))

    @rule(session=SESSIONS, patience=st.floats(0, 20) | st.just(ENDLESS))
    def add(self, session: int, patience: float) -> None:
        self.numbers += 1
        one = Job(session, self.now, self.now + patience, self.numbers)
        own = sum(other.session == session for other in self.waiting)
        if own >= MAX_QUEUE - len(self.waiting):
            with pytest.raises(Overloaded):
                self.batcher.add(one)
            return
        try:
            self.batcher.add(one)
        except Overloaded:
            self.check_refusal(session, patience)
            return
        self.waiting.append(one)
        self.overtaken.setdefault(session, defaultdict(int))

    def check_fresh(self, taken: list[Job]) -> None:
        """Whatever waited longer than the bound and a batch is the last of its session."""
        if self.max_queue_s is None or self.longest_batch_s is None:
            return
        late = [one for one in taken if self.now - one.arrived_at > self.max_queue_s + self.longest_batch_s]
        assert all(sum(other.session == one.session for other in self.waiting) == 1 for one in late)

    def check_stale(self, taken: list[Job]) -> None:
        """Passed over is only what waited beyond the bound, and whose session has a newer one that starts now."""
        stale = self.batcher.stale()
        assert self.batcher.stale() == []
        for one in stale:
            assert self.max_queue_s is not None
            assert self.now - one.arrived_at > self.max_queue_s
            assert any(other.session == one.session for other in taken)
        self.take_out(stale)

    @rule()
    def take(self) -> None:
        taken = self.batcher.take(self.now)
        able = {one.session for one in self.waiting}
        self.check_stale(taken)
        if self.running or not self.waiting:
            assert taken == []
            return
        if not taken:
            self.check_wait()
            return
        self.waits_since = None
        self.check_fresh(taken)
        sessions = [one.session for one in taken]
        assert len(set(sessions)) == len(sessions), "two of one session at once"
        assert len(taken) == min(MAX_BATCH, len(able)), "a free runner takes what is there, up to max_batch"
        for one in taken:
            first = next(other for other in self.waiting if other.session == one.session)
            assert one is first, "a session's jobs come out in the order they went in"
        self.take_out(taken)
        self.running = taken
        self.started_at = self.now
        for session, served in self.overtaken.items():
            if session not in sessions:
                for other in sessions:
                    served[other] += 1
                    assert served[other] <= 1, "nobody is served twice while another waits"
        for session in sessions:
            if session in self.overtaken:
                self.overtaken[session] = defaultdict(int)

    @precondition(lambda self: self.running)
    @rule()
    def done(self) -> None:
        self.batcher.done(self.now)
        self.running = []
        self.longest_batch_s = max(self.longest_batch_s or 0.0, self.now - self.started_at)

    @rule(session=SESSIONS)
    def cancel(self, session: int) -> None:
        cancelled = self.batcher.cancel(session)
        assert cancelled == [one for one in self.waiting if one.session == session]
        self.take_out(cancelled)

    @rule(elapsed=st.floats(0, 10))
    def expire(self, elapsed: float) -> None:
        self.now += elapsed
        late = self.batcher.expire(self.now)
        assert {one.payload for one in late} == {one.payload for one in self.waiting if one.deadline <= self.now}
        self.take_out(late)
        assert self.batcher.expire(self.now) == []

    @invariant()
    def the_counts_are_right(self) -> None:
        assert self.batcher.queued == len(self.waiting)
        assert self.batcher.running == len(self.running)

    @invariant()
    def it_wakes_at_the_earliest_deadline(self) -> None:
        deadline = min((one.deadline for one in self.waiting), default=None)
        start_at = self.batcher.start_at
        if deadline is not None and start_at is not None:
            deadline = min(deadline, start_at)
        assert self.batcher.wake_at(self.now) == deadline

    def teardown(self) -> None:
        """Nothing is lost: what waits still comes out."""
        self.batcher.done(self.now)
        for _ in range(self.numbers + 1):
            self.running = []
            self.now += 2 * self.max_wait_s  # whatever is waited for, it is over
            taken = self.batcher.take(self.now)
            self.check_stale(taken)
            self.take_out(taken)
            self.batcher.done(self.now)
        assert self.waiting == []
        assert self.batcher.queued == 0


class GatheringMachine(BatcherMachine):
    """The same with waits for fuller batches; time passes in steps that make habits."""

    max_wait_s = 2.0

    @rule(elapsed=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    def pass_time(self, elapsed: float) -> None:
        self.now += elapsed

    @precondition(lambda self: not self.running and not self.waiting)
    @rule(sessions=st.sets(SESSIONS, min_size=2, max_size=4), pause=st.sampled_from([0.5, 1.5, 3.0]))
    def play_closed_loops(self, sessions: set[int], pause: float) -> None:
        """Several sessions ask again `pause` after each answer, so that they are expected; then one comes first."""
        for _ in range(4):
            for session in sorted(sessions):
                self.add(session, ENDLESS)
            while self.waiting:
                self.take()
                if self.running:
                    self.now += 10.0  # a batch takes long, so that a fuller one is worth a wait
                    self.done()
                else:
                    self.now += 0.25
            self.now += pause
        self.add(min(sessions), ENDLESS)
        self.take()


class OverloadMachine(BatcherMachine):
    """The same with a bound on stale queues; batches take time, so that waits can be foretold."""

    max_queue_s = 4.0

    @precondition(lambda self: self.running)
    @rule(cost=st.sampled_from([0.5, 1.0, 3.0, 50.0]))
    def end_later(self, cost: float) -> None:
        self.now += cost
        self.done()


TestOverload = OverloadMachine.TestCase
TestOverload.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestGathering = GatheringMachine.TestCase
TestGathering.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def closed_loop(batcher: Batcher, sessions: int, cost_s: float = 5e-3, rounds: int = 30) -> int:
    """Play sessions that ask again some 0.3 ms after each answer; returns the size of the last batch."""
    now, size = 0.0, 0
    back = {session: session * 1e-5 for session in range(sessions)}
    for _ in range(rounds):
        batch: list[Job] = []
        while not batch:
            for session in [session for session, at in back.items() if at <= now]:
                batcher.add(Job(session, back.pop(session), 1e9, None))
            batch = batcher.take(now)
            upcoming = [*back.values(), *([batcher.start_at] if batcher.start_at is not None else [])]
            now = now if batch else max(now + 1e-6, min(upcoming))
        now += cost_s
        batcher.done(now)
        size = len(batch)
        back.update({int(str(one.session)): now + 3e-4 + int(str(one.session)) * 1e-5 for one in batch})
    return size


def test_sessions_that_are_expected_back_are_waited_for_and_share_a_batch() -> None:
    assert closed_loop(Batcher(8, 100, max_wait_s=2e-3), sessions=8) == 8
    assert closed_loop(Batcher(8, 100, max_wait_s=None), sessions=8) == 8


def test_with_no_wait_allowed_two_half_batches_alternate() -> None:
    assert closed_loop(Batcher(8, 100, max_wait_s=0), sessions=8) < 8


def test_nobody_is_waited_for_longer_than_the_bound() -> None:
    batcher = Batcher(8, 100, max_wait_s=1e-3)
    closed_loop(batcher, sessions=2)
    batcher.add(job("alone"))
    waited_from = 100.0  # the two are long overdue: nothing is worth a wait
    assert batcher.take(waited_from)


def test_a_wait_ends_by_itself_if_who_was_expected_stays_away() -> None:
    batcher = Batcher(8, 100, max_wait_s=2e-3)
    now = 0.0
    for _ in range(10):
        for session in ("a", "b"):
            batcher.add(Job(session, now, 1e9, None))
        while not batcher.take(now):
            assert batcher.start_at is not None
            now = max(now, batcher.start_at)
        batcher.done(now + 5e-3)
        now += 5e-3 + 3e-4
    batcher.add(Job("a", now, 1e9, None))
    began = now
    while not (taken := batcher.take(now)):
        assert batcher.start_at is not None
        now = max(now + 1e-5, batcher.start_at)
    assert [one.session for one in taken] == ["a"]
    assert 0 < now - began <= 2e-3 + 1e-5


def test_a_lone_session_never_waits() -> None:
    batcher = Batcher(max_batch=8, max_queue=8)
    one = job("a")
    batcher.add(one)
    assert batcher.take(0.0) == [one]


def test_a_session_that_pipelines_two_hundred_holds_nobody_up() -> None:
    """Counted in batches: whoever comes is in the next batch that starts."""
    batcher = Batcher(max_batch=1, max_queue=1_000)
    for _ in range(200):
        batcher.add(job("greedy"))
    batcher.take(0.0)
    late = job("late")
    batcher.add(late)
    batcher.done(0.0)
    assert batcher.take(0.0) == [late]


def test_jobs_of_a_session_that_runs_wait_for_their_turn() -> None:
    batcher = Batcher(max_batch=8, max_queue=8)
    first, second = job("a"), job("a")
    batcher.add(first)
    batcher.take(0.0)
    batcher.add(second)
    assert batcher.take(0.0) == []
    batcher.done(0.0)
    assert batcher.take(0.0) == [second]


def test_a_cancelled_session_may_come_back_while_its_old_job_runs() -> None:
    batcher = Batcher(max_batch=8, max_queue=8)
    for _ in range(2):
        batcher.add(job("a"))
    batcher.take(0.0)
    assert len(batcher.cancel("a")) == 1
    again = job("a")
    batcher.add(again)
    batcher.done(0.0)
    assert batcher.take(0.0) == [again]


def test_a_full_queue_says_how_full() -> None:
    batcher = Batcher(max_batch=1, max_queue=2)
    batcher.add(job("a"))
    batcher.add(job("b"))
    with pytest.raises(Overloaded, match="2 requests wait already, 0 of this session; this server keeps 2"):
        batcher.add(job("c"))
    batcher.take(0.0)
    batcher.add(job("c"))


def test_a_session_that_pipelines_leaves_half_of_the_queue_to_others() -> None:
    batcher = Batcher(max_batch=1, max_queue=8)
    for _ in range(4):
        batcher.add(job("greedy"))
    with pytest.raises(Overloaded, match="4 requests wait already, 4 of this session"):
        batcher.add(job("greedy"))
    for other in range(4):
        batcher.add(job(other))
