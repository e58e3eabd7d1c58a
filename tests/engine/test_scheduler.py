"""Requests in, outcomes back: the scheduler over a runner whose batches the test ends by hand."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import DeadlineExceeded, Overloaded, PolicyFailed
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec
from policyserve.engine.batcher import Batcher
from policyserve.engine.runner import OnDone, OnStage, Task, ThreadRunner
from policyserve.engine.scheduler import Scheduler
from tests.engine.running import KINDS, NOBODY, PATIENCE_S, recipe, task, value


class HandRunner:
    """Keeps the batch that runs, and one behind it, until the test ends them."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.forgotten: list[Hashable] = []
        self.taken_back: list[Hashable] = []
        self._running: deque[tuple[list[Any], OnDone]] = deque()

    async def start(self, on_stage: OnStage) -> PolicySpec:
        return PolicySpec("hand", None, None)

    inline = None

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        assert len(self._running) < 2, "one batch at a time, and one behind it"
        self.batches.append([task.observation for task in batch])
        self._running.append((self.batches[-1], on_done))

    @property
    def running(self) -> int:
        """Batches that it has."""
        return len(self._running)

    def end_batch(self) -> None:
        batch, on_done = self._running.popleft()
        on_done([Answered(ActionChunk(np.array(one)), 0.0, 0.0) for one in batch])

    def take_back(self, session: Hashable) -> None:
        self.taken_back.append(session)

    def forget(self, session: Hashable) -> None:
        self.forgotten.append(session)

    async def close(self, timeout_s: float) -> None: ...


class Bench:
    """A scheduler and the outcomes that came back, in the order of their coming."""

    def __init__(
        self,
        max_batch: int = 2,
        max_queue: int = 4,
        request_timeout_s: float = 1_000.0,
        max_queue_s: float | None = None,
        why_late: Callable[[], str] = lambda: "",
    ) -> None:
        self.runner = HandRunner()
        batcher = Batcher(max_batch, max_queue, 0.0, max_queue_s)
        self.scheduler = Scheduler(self.runner, batcher, request_timeout_s, NOBODY, why_late=why_late)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.changed = asyncio.Event()

    def submit(self, session: Hashable, name: str) -> None:
        def note(outcome: Outcome) -> None:
            self.outcomes.append((name, outcome))
            self.changed.set()

        self.scheduler.submit(Task(session, name), time.monotonic(), note)

    @property
    def answers(self) -> list[tuple[str, str]]:
        return [(name, str(one.chunk.actions)) for name, one in self.outcomes if isinstance(one, Answered)]


def run(talk: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(talk(), 30)

    asyncio.run(bounded())


def test_the_first_request_starts_at_once_and_those_behind_it_share_the_next_batch() -> None:
    async def talk() -> None:
        bench = Bench()
        bench.submit(1, "a")
        assert bench.runner.batches == [["a"]]
        for session, name in ((1, "b"), (2, "c"), (3, "d")):
            bench.submit(session, name)
        bench.runner.end_batch()
        assert bench.runner.batches[1] == ["c", "d"]
        bench.runner.end_batch()
        assert bench.runner.batches[2] == ["b"]
        bench.runner.end_batch()
        assert bench.answers == [("a", "a"), ("c", "c"), ("d", "d"), ("b", "b")]

    run(talk)


def test_it_is_at_work_while_the_runner_has_a_batch_and_not_for_what_waits() -> None:
    async def talk() -> None:
        bench = Bench()
        assert not bench.scheduler.is_working
        bench.submit(1, "a")
        bench.scheduler.hold()
        bench.submit(2, "b")
        assert bench.scheduler.is_working
        bench.runner.end_batch()
        assert (bench.scheduler.is_working, bench.scheduler.load) == (False, 1)

    run(talk)


def test_the_next_batch_starts_before_the_replies_are_written() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=1)
        batches_at_reply: list[int] = []
        bench.scheduler.submit(Task(1, "a"), 0.0, lambda _: batches_at_reply.append(len(bench.runner.batches)))
        bench.submit(2, "b")
        bench.runner.end_batch()
        assert batches_at_reply == [2]
        bench.runner.end_batch()

    run(talk)


def test_a_full_queue_refuses_and_loses_nothing() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=1, max_queue=2)
        for number in range(3):
            bench.submit(number, str(number))
        with pytest.raises(Overloaded):
            bench.submit(9, "too many")
        for _ in range(3):
            bench.runner.end_batch()
        assert [name for name, _ in bench.answers] == ["0", "1", "2"]

    run(talk)


def test_a_request_that_grew_stale_is_told_and_its_sessions_newer_one_runs() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=1, max_queue=10, max_queue_s=0.0)
        for name in "abcd":
            bench.submit(1, name)  # what a batch takes is not known yet: all are accepted
        for _ in range(3):
            bench.runner.end_batch()
        assert bench.runner.batches == [["a"], ["b"], ["d"]]
        ((name, refusal),) = [(name, one) for name, one in bench.outcomes if not isinstance(one, Answered)]
        assert name == "c"
        assert isinstance(refusal, Overloaded)
        await bench.scheduler.drained()

    run(talk)


def test_a_request_that_waits_past_its_deadline_is_told_and_never_runs() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=1, request_timeout_s=0.02)
        bench.submit(1, "runs")
        bench.submit(2, "waits")
        while len(bench.outcomes) < 2:
            bench.changed.clear()
            await bench.changed.wait()
        assert sorted(name for name, _ in bench.outcomes) == ["runs", "waits"]
        assert all(isinstance(outcome, DeadlineExceeded) for _, outcome in bench.outcomes)
        assert bench.runner.taken_back == [1]  # the other never reached it
        bench.runner.end_batch()
        assert bench.runner.batches == [["runs"]]
        assert bench.answers == []  # it came too late
        await bench.scheduler.drained()
        # The alarm is set anew for whoever waits next.
        bench.submit(1, "runs")
        bench.submit(2, "waits again")
        while len(bench.outcomes) < 4:
            bench.changed.clear()
            await bench.changed.wait()
        bench.runner.end_batch()

    run(talk)


def test_a_forgotten_sessions_requests_are_dropped_and_others_go_on() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=1)
        bench.submit(1, "a")
        bench.submit(1, "b")
        bench.submit(2, "c")
        bench.scheduler.forget(1)
        assert bench.runner.forgotten == [1]
        bench.runner.end_batch()
        bench.runner.end_batch()
        assert bench.runner.batches == [["a"], ["c"]]
        await bench.scheduler.drained()

    run(talk)


def test_drained_waits_for_what_runs_and_what_waits() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=1)
        await bench.scheduler.drained()
        bench.submit(1, "a")
        bench.submit(2, "b")
        waiting = asyncio.ensure_future(bench.scheduler.drained())
        for _ in range(2):
            await asyncio.sleep(0)
            assert not waiting.done()
            bench.runner.end_batch()
        await waiting
        assert len(bench.answers) == 2

    run(talk)


def test_one_listeners_exception_does_not_cost_the_others_their_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        bench = Bench(max_batch=2)

        def fall(_: Outcome) -> None:
            raise RuntimeError("a bug of ours")

        bench.submit(0, "first")
        bench.scheduler.submit(Task(1, "a"), time.monotonic(), fall)
        bench.submit(2, "b")
        bench.runner.end_batch()
        bench.runner.end_batch()
        assert [name for name, _ in bench.answers] == ["first", "b"]
        await bench.scheduler.drained()
        assert "a bug of ours" in caplog.text

    run(talk)


def test_over_a_real_thread_every_request_gets_its_own_answer() -> None:
    def double(batch: Sequence[Any]) -> list[ActionChunk | PolicyFailed]:
        return [
            ActionChunk(np.array(one.observation * 2)) if one.observation % 7 else PolicyFailed("7") for one in batch
        ]

    class Doubler:
        spec = PolicySpec("double", None, None, max_batch=5)

        def infer(self, batch: Sequence[Any]) -> Any:
            return double(batch)

        def close(self) -> None: ...

    async def talk() -> None:
        runner = ThreadRunner(lambda _: Doubler())
        await runner.start(lambda _: None)
        scheduler = Scheduler(runner, Batcher(5, 10_000), 1_000.0, NOBODY)
        seen: dict[int, Outcome] = {}
        for number in range(500):
            scheduler.submit(
                Task(number % 11, number), time.monotonic(), lambda one, number=number: seen.update({number: one})
            )
        await scheduler.drained()
        assert len(seen) == 500
        for number, outcome in seen.items():
            assert isinstance(outcome, PolicyFailed) if number % 7 == 0 else outcome.chunk.actions == number * 2  # type: ignore[union-attr]
        await runner.close(5)

    run(talk)


def test_a_full_batch_stands_behind_the_one_that_runs_so_that_the_runner_need_not_ask() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=2, max_queue=100)
        for number in range(7):
            bench.submit(number, str(number))
        assert bench.runner.batches == [["0"], ["1", "2"]]
        bench.runner.end_batch()
        assert bench.runner.batches[2:] == [["3", "4"]]
        bench.runner.end_batch()
        bench.runner.end_batch()
        assert bench.runner.batches[3:] == [["5", "6"]]
        bench.runner.end_batch()
        await bench.scheduler.drained()
        assert [name for name, _ in bench.answers] == [str(number) for number in range(7)]

    run(talk)


def test_what_stands_behind_a_lost_batch_is_handed_over_again_and_answered_once() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=2, max_queue=100)
        for number in range(4):
            bench.submit(number, str(number))
        bench.submit(1, "later")
        lost = bench.runner
        assert lost.batches == [["0"], ["1", "2"]]
        bench.scheduler.hold()
        lost.end_batch()  # a runner that breaks ends what it was given
        lost.end_batch()
        assert [name for name, _ in bench.answers] == ["0"]
        bench.scheduler.resume()
        while lost.running:
            lost.end_batch()
        assert lost.batches[2:] == [["1", "2"], ["3", "later"]]
        assert [name for name, _ in bench.answers] == ["0", "1", "2", "3", "later"]

    run(talk)


def test_a_deadline_passes_behind_a_batch_too() -> None:
    async def talk() -> None:
        bench = Bench(max_batch=2, max_queue=100, request_timeout_s=0.02)
        for number in range(3):
            bench.submit(number, str(number))
        assert bench.runner.running == 2
        while len(bench.outcomes) < 3:
            bench.changed.clear()
            await bench.changed.wait()
        assert all(isinstance(outcome, DeadlineExceeded) for _, outcome in bench.outcomes)
        assert set(bench.runner.taken_back) == {0, 1, 2}  # those of the batch behind, too
        bench.runner.end_batch()
        bench.runner.end_batch()
        await bench.scheduler.drained()
        assert len(bench.outcomes) == 3

    run(talk)


@pytest.mark.parametrize(
    ("why", "running", "behind"),
    [("", "; the policy is still at it", ""), ("nobody is there", "; nobody is there", "; nobody is there")],
)
def test_a_late_request_is_told_whether_the_policy_is_at_it(why: str, running: str, behind: str) -> None:
    async def talk() -> None:
        bench = Bench(max_batch=2, max_queue=100, request_timeout_s=0.02, why_late=lambda: why)
        for name in ("runs", "behind", "behind too", "waits"):
            bench.submit(name, name)
        assert bench.runner.batches == [["runs"], ["behind", "behind too"]]
        while len(bench.outcomes) < 4:
            bench.changed.clear()
            await bench.changed.wait()
        late = "no answer within 0.02 s"
        told = {name: str(outcome) for name, outcome in bench.outcomes}
        assert told.pop("runs") == late + running
        assert set(told.values()) == {late + behind}

    run(talk)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_request_that_is_refused_at_its_deadline_leaves_its_sessions_state_as_it_was(
    kind: str, tmp_path: Path
) -> None:
    async def talk() -> None:
        runner = KINDS[kind](recipe(marks=tmp_path))
        await runner.start(lambda _: None)
        patient, hasty = (Scheduler(runner, Batcher(4, 100), timeout_s, NOBODY) for timeout_s in (1_000.0, 0.02))

        async def ask(scheduler: Scheduler, x: float = 0) -> Outcome:
            told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            scheduler.submit(task(1, x, "count_when_told"), time.monotonic(), told.set_result)
            return await told

        assert [value(await ask(patient)) for _ in range(2)] == [1, 2]
        assert isinstance(await ask(hasty, 1), DeadlineExceeded)  # the policy is at it until there is a file
        (tmp_path / "go").touch()
        await hasty.drained()
        assert value(await ask(patient)) == 3  # and not 4
        await runner.close(PATIENCE_S)

    run(talk)
