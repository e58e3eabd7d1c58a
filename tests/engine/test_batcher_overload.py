"""More than the policy can do: who is refused, how long the others wait, and how even it is. Simulated time."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import Overloaded
from policyserve.engine.batcher import Batcher, Job
from policyserve.server.config import ServerConfig

DEFAULTS = ServerConfig()
COST_S = 0.02
MAX_BATCH = 4
CAPACITY = MAX_BATCH / COST_S  # requests per second


def served_by_default(max_batch: int) -> Batcher:
    return Batcher(max_batch, DEFAULTS.max_queue, DEFAULTS.max_wait_s, DEFAULTS.max_queue_s)


@dataclass
class Ledger:
    """What became of each session's requests."""

    waits_s: list[float] = field(default_factory=list)  # of those that ran, arrival to start
    asked: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)

    @property
    def evenness(self) -> float:
        """Answers of the session that got fewest, as a share of the one that got most."""
        return min(self.answered.values()) / max(self.answered.values())


class Play:
    """Sessions against a batcher. next_in: seconds to a session's next request, in a closed loop after the answer."""

    def __init__(self, batcher: Batcher, cost_s: float, next_in: Callable[[int], float], *, is_open: bool) -> None:
        self.ledger = Ledger()
        self._batcher = batcher
        self._cost_s = cost_s
        self._next_in = next_in
        self._is_open = is_open
        self._events: list[tuple[float, int, int]] = []  # when, a tie-breaker, a session or -1 for the runner
        self._running: list[Job] = []

    def run(self, sessions: int, seconds: float) -> Ledger:
        for session in range(sessions):
            self._later(self._next_in(session), session)
        while self._events and self._events[0][0] < seconds:
            now, _, who = heapq.heappop(self._events)
            if who >= 0:
                self._ask(who, now)
            elif self._running:
                self._end_batch(now)
            self._start_batch(now)
        counted = self.ledger.answered.total() + self.ledger.refused.total() + self._batcher.queued + len(self._running)
        assert counted == self.ledger.asked.total(), "nothing is lost or doubled"
        return self.ledger

    def _later(self, when: float, who: int) -> None:
        heapq.heappush(self._events, (when, len(self._events) if who >= 0 else -1, who))

    def _ask(self, session: int, now: float) -> None:
        self.ledger.asked[session] += 1
        try:
            self._batcher.add(Job(session, now, now + DEFAULTS.request_timeout_s, session))
        except Overloaded:
            self.ledger.refused[session] += 1
        if self._is_open:
            self._later(now + self._next_in(session), session)

    def _start_batch(self, now: float) -> None:
        if self._running:
            return
        self._running = self._batcher.take(now)
        self.ledger.refused.update(job.payload for job in self._batcher.stale())
        self.ledger.waits_s += [now - job.arrived_at for job in self._running]
        if self._running:
            self._later(now + self._cost_s, -1)
        elif self._batcher.start_at is not None:
            self._later(max(self._batcher.start_at, now + 1e-6), -1)

    def _end_batch(self, now: float) -> None:
        self._batcher.done(now)
        for job in self._running:
            self.ledger.answered[job.payload] += 1
            if not self._is_open:
                self._later(now + self._next_in(job.payload), job.payload)
        self._running = []


def open_loop(load: float, sessions: int, seed: int, seconds: float = 20.0) -> Ledger:
    """Clients that ask at random times whatever the answers, `load` times what the policy can do, equally each."""
    dice = random.Random(seed)
    rate = load * CAPACITY / sessions
    play = Play(served_by_default(MAX_BATCH), COST_S, lambda _: dice.expovariate(rate), is_open=True)
    return play.run(sessions, seconds)


def steady_loop(load: float, sessions: int, seed: int, seconds: float = 20.0) -> Ledger:
    """The same with clients that keep a period, give or take a tenth."""
    dice = random.Random(seed)
    period_s = sessions / (load * CAPACITY)
    play = Play(served_by_default(MAX_BATCH), COST_S, lambda _: period_s * dice.uniform(0.9, 1.1), is_open=True)
    return play.run(sessions, seconds)


@pytest.mark.parametrize("load", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("sessions", [3, 8, 40])
def test_beyond_its_capacity_the_policy_is_kept_busy_and_those_accepted_wait_no_longer_than_the_bound(
    load: float, sessions: int
) -> None:
    ledger = open_loop(load, sessions, seed=1)
    able = min(sessions, MAX_BATCH) / COST_S * 20.0
    assert ledger.answered.total() > 0.95 * able
    assert ledger.refused.total() > 0
    waits_s = sorted(ledger.waits_s)
    everybody_once_s = ceil(sessions / MAX_BATCH) * COST_S
    assert waits_s[len(waits_s) * 9 // 10] <= DEFAULTS.max_queue_s + COST_S
    assert waits_s[-1] <= DEFAULTS.max_queue_s + everybody_once_s + COST_S


def test_within_its_capacity_nobody_is_refused() -> None:
    ledger = open_loop(0.7, 8, seed=2)
    assert ledger.refused.total() == 0
    assert ledger.answered.total() > 0.95 * ledger.asked.total()


@pytest.mark.parametrize("load", [1.2, 2.0, 5.0])
@pytest.mark.parametrize("sessions", [5, 16, 30])
def test_sessions_that_ask_equally_often_are_answered_equally_often(load: float, sessions: int) -> None:
    assert steady_loop(load, sessions, seed=4).evenness > 0.8


def test_a_session_within_its_share_is_not_refused_while_others_ask_for_too_much() -> None:
    dice = random.Random(3)
    # Session 0 asks ten times a second, the others for four times the capacity.
    rates = {0: 10.0}
    play = Play(
        served_by_default(MAX_BATCH), COST_S, lambda who: dice.expovariate(rates.get(who, CAPACITY / 2)), is_open=True
    )
    ledger = play.run(9, 20.0)
    assert ledger.refused[0] <= 0.01 * ledger.asked[0]
    assert all(ledger.refused[other] > 0.5 * ledger.asked[other] for other in range(1, 9))


@given(
    sessions=st.sampled_from([1, 2, 64, 256]),
    cost_s=st.floats(1e-4, 10.0),
    max_batch=st.sampled_from([1, 8, 64]),
    pause_s=st.floats(1e-4, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_clients_that_wait_for_their_answers_are_never_refused(
    sessions: int, cost_s: float, max_batch: int, pause_s: float
) -> None:
    """Up to what cannot be answered before its deadline, which is no answer either."""
    cost_s = min(cost_s, 0.9 * DEFAULTS.request_timeout_s * max_batch / sessions)
    dice = random.Random(sessions)
    play = Play(served_by_default(max_batch), cost_s, lambda _: dice.uniform(0, pause_s), is_open=False)
    ledger = play.run(sessions, 6 * (pause_s + cost_s * (1 + sessions / max_batch)))
    assert ledger.refused.total() == 0
    assert len(ledger.answered) == sessions


def test_one_batch_that_hangs_does_not_have_others_refused() -> None:
    batcher = served_by_default(1)
    for at in range(5):
        run_one(batcher, at, COST_S)
    run_one(batcher, 5.0, 100.0)
    for session in range(DEFAULTS.max_sessions):
        batcher.add(Job(session, 200.0, 320.0, None))
    assert batcher.queued == DEFAULTS.max_sessions


def test_what_cannot_be_answered_before_its_deadline_is_refused_at_once() -> None:
    batcher = served_by_default(1)
    for at in range(3):
        run_one(batcher, at * 10.0, 2.0)
    for session in range(60):
        batcher.add(Job(session, 100.0, 220.0, None))
    with pytest.raises(Overloaded, match="would wait 120000 ms, 118000 ms at most are allowed; again in 2000 ms"):
        batcher.add(Job("one too many", 100.0, 220.0, None))


def run_one(batcher: Batcher, at: float, cost_s: float) -> None:
    batcher.add(Job("one", at, 1e9, None))
    assert batcher.take(at)
    batcher.done(at + cost_s)


def filled(batcher: Batcher, session: object, at: float) -> Overloaded:
    """Pipeline as much as is accepted; returns the refusal that ended it."""
    for _ in range(1_000):
        try:
            batcher.add(Job(session, at, at + 120.0, None))  # type: ignore[arg-type]
        except Overloaded as error:
            return error
    raise AssertionError("nothing was refused")


def test_who_has_most_waiting_is_refused_first() -> None:
    batcher = served_by_default(1)
    run_one(batcher, 0.0, COST_S)
    filled(batcher, "greedy", 1.0)
    for other in range(10):
        batcher.add(Job(other, 1.0, 121.0, None))
    with pytest.raises(Overloaded):
        batcher.add(Job("greedy", 1.0, 121.0, None))


def test_the_hint_says_when_to_come_again() -> None:
    batcher = served_by_default(1)
    run_one(batcher, 0.0, COST_S)
    now = 1.0
    refusal = filled(batcher, "greedy", now)
    assert refusal.retry_after_ms is not None
    assert "again in 20 ms" in str(refusal)
    batcher.take(now)
    with pytest.raises(Overloaded):
        batcher.add(Job("greedy", now, now + 120.0, None))
    again = now + refusal.retry_after_ms / 1e3
    batcher.done(again)
    batcher.take(again)
    batcher.add(Job("greedy", again, again + 120.0, None))


def test_what_others_delay_beyond_the_bound_is_passed_over_for_a_newer_one() -> None:
    batcher = served_by_default(1)
    run_one(batcher, 0.0, COST_S)
    filled(batcher, "greedy", 1.0)
    mine = batcher.queued
    for other in range(255):
        batcher.add(Job(other, 1.0, 121.0, None))
    now = 1.0
    started: list[float] = []
    stale: list[Job] = []
    while taken := batcher.take(now):
        stale += batcher.stale()
        started += [now - one.arrived_at for one in taken if one.session == "greedy"]
        now += COST_S
        batcher.done(now)
    # One starts before the others come, and of those that then grow stale the newest is answered.
    assert len(started) == 2
    assert len(stale) == mine - 2
    assert batcher.queued == 0


def test_without_a_bound_a_session_may_pipeline_as_long_as_its_deadline_allows() -> None:
    batcher = Batcher(1, 10_000)
    run_one(batcher, 0.0, COST_S)
    for _ in range(1_000):
        batcher.add(Job("patient", 1.0, 121.0, None))
    assert batcher.queued == 1_000


@pytest.mark.parametrize(("first_s", "is_refused"), [(60.0, False), (0.9, True)])
def test_a_first_batch_of_a_minute_may_have_compiled_and_foretells_nothing(first_s: float, is_refused: bool) -> None:
    batcher = served_by_default(1)
    run_one(batcher, 0.0, first_s)
    now = first_s + 1.0
    batcher.add(Job("other", now, now + 120.0, None))
    batcher.take(now)
    batcher.add(Job("robot", now, now + 120.0, None))
    if is_refused:
        with pytest.raises(Overloaded, match="this request would wait"):
            batcher.add(Job("robot", now, now + 120.0, None))
    else:
        batcher.add(Job("robot", now, now + 120.0, None))
        batcher.add(Job("robot", now, now + 120.0, None))
