"""Preparing ahead changes when things are done, and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.effects import Answered, Outcome
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.batcher import Batcher
from policyserve.engine.preparing import Prepared, PreparingInTurn, PreparingThread
from policyserve.engine.runner import Runner, Task, ThreadRunner
from policyserve.engine.scheduler import Scheduler
from tests.engine.running import KINDS, NOBODY, PATIENCE_S, infer, recipe, task, until, value, with_runner

SPEC = PolicySpec("doubling", {"x": ArraySpec((1,))}, ArraySpec((1,)), max_batch=2)


class Doubling:
    """Doubles x while it prepares, and adds what its session had before; keeps a list of what it did."""

    buckets: Sequence[int] = ()

    def __init__(self, spec: PolicySpec = SPEC) -> None:
        self.spec = spec
        self.done: list[str] = []
        self.release = threading.Event()

    def prepare(self, batch: Sequence[PolicyInput]) -> list[float]:
        self.done.append(f"prepare {len(batch)}")
        return [2 * float(one.observation["x"][0]) for one in batch]

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: list[float]) -> list[ActionChunk]:
        self.done.append(f"infer {len(batch)}")
        assert self.release.wait(PATIENCE_S)
        totals = [x + (one.state or 0.0) for one, x in zip(batch, prepared, strict=True)]
        return [ActionChunk(np.array([total], np.float32), state=total) for total in totals]

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return self.infer_prepared(batch, self.prepare(batch))

    def close(self) -> None:
        """Nothing to release."""


def one(x: float) -> PolicyInput:
    return PolicyInput({"x": np.array([x], np.float32)})


# The parts


def test_what_was_prepared_is_let_go_of_when_it_is_handed_over() -> None:
    class Watching(Doubling):
        def infer_prepared(self, batch: Sequence[PolicyInput], prepared: Any) -> list[ActionChunk]:
            assert not any(value is prepared for value in vars_of(ready))
            return super().infer_prepared(batch, prepared)

    def vars_of(slotted: Any) -> list[Any]:
        return [getattr(slotted, name) for name in slotted.__slots__]

    policy = Watching()
    policy.release.set()
    ready = Prepared(policy, [one(1)])
    assert [2.0] in vars_of(ready)
    assert ready.infer([one(1)])[0].actions == [2.0]  # type: ignore[union-attr]


def test_two_threads_never_prepare_at_once() -> None:
    started, second = threading.Event(), threading.Event()

    class Slow(Doubling):
        def prepare(self, batch: Sequence[PolicyInput]) -> list[float]:
            if started.is_set():
                second.set()
            else:
                started.set()
                assert not second.wait(0.1)  # many times as long as a thread needs that nothing holds
            return super().prepare(batch)

    policy = Slow()
    policy.release.set()
    in_turn = PreparingInTurn(policy)
    first = threading.Thread(target=in_turn.infer, args=([one(1)],))
    first.start()
    assert started.wait(PATIENCE_S)
    in_turn.infer([one(3)])
    first.join(PATIENCE_S)
    assert sorted(policy.done) == ["infer 1", "infer 1", "prepare 1", "prepare 1"]


class Gate:
    """A thread that prepares for `policy`, once `release` is set."""

    def __init__(self) -> None:
        self.policy, self.begun, self.release = Doubling(), threading.Event(), threading.Event()
        self.thread = PreparingThread(self.prepare)
        self.thread.start()

    def prepare(self, batch: Sequence[Any]) -> Prepared:
        self.begun.set()
        assert self.release.wait(PATIENCE_S)
        return Prepared(self.policy, batch)


def test_a_batch_that_nobody_has_begun_to_prepare_is_prepared_by_the_policys_thread() -> None:
    gate = Gate()
    gate.release.set()
    ahead = gate.thread.submit(2, [one(2)])  # before batch 1 is in hand
    assert isinstance(gate.thread.take(2, [one(2)], ahead), Prepared)
    assert ahead.cancelled()
    gate.thread.close()
    assert gate.policy.done == ["prepare 1"]


def test_a_batch_is_prepared_ahead_when_the_one_before_it_is_in_hand() -> None:
    gate = Gate()
    ahead = gate.thread.submit(2, [one(2)])
    assert not gate.begun.wait(0.1)
    gate.release.set()
    gate.thread.take(1, [one(1)], None)
    prepared = ahead.result(PATIENCE_S)
    assert gate.thread.take(2, [one(2)], ahead) is prepared
    gate.thread.close()


def test_a_thread_that_is_closed_begins_nothing_more() -> None:
    gate = Gate()
    second, third = gate.thread.submit(2, [one(2)]), gate.thread.submit(3, [one(3)])
    gate.release.set()
    gate.thread.take(1, [one(1)], None)
    second.result(PATIENCE_S)
    gate.thread.close()  # which waits for the thread, and that waited for batch 2 to be in hand
    assert not third.done()


def test_closing_waits_for_what_is_being_prepared() -> None:
    gate = Gate()
    gate.thread.submit(1, [one(1)])
    assert gate.begun.wait(PATIENCE_S)
    closing = threading.Thread(target=gate.thread.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    gate.release.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert gate.policy.done == ["prepare 1"]


# Under a scheduler


def test_a_full_batch_behind_the_running_one_is_prepared_before_that_ends() -> None:
    policy = Doubling()
    outcomes: list[Outcome] = []

    async def run() -> None:
        runner = ThreadRunner(lambda _: policy)
        await runner.start(lambda _: None)
        scheduler = Scheduler(runner, Batcher(2, 100), PATIENCE_S, NOBODY)
        for session in range(3):
            asked = Task(session, {"x": np.array([session], np.float32)})
            scheduler.submit(asked, time.monotonic(), outcomes.append)
        await until(lambda: len(policy.done) == 3)
        assert policy.done[0] == "prepare 1"
        assert sorted(policy.done[1:]) == ["infer 1", "prepare 2"]
        assert outcomes == []
        policy.release.set()
        await asyncio.wait_for(scheduler.drained(), PATIENCE_S)
        await runner.close(PATIENCE_S)

    asyncio.run(run())
    assert policy.done[3:] == ["infer 2"]
    assert [outcome.chunk.actions for outcome in outcomes if isinstance(outcome, Answered)] == [0, 2, 4]


def test_both_threads_of_a_policy_end_with_its_runner() -> None:
    policy = Doubling()
    policy.release.set()

    async def talk(runner: Any) -> None:
        batches = [infer(runner, task(number, number)) for number in range(3)]
        assert [value((await batch)[0]) for batch in batches] == [0, 2, 4]
        assert len(preparing_threads() - before) == 1

    before = preparing_threads()
    with_runner(ThreadRunner(lambda _: policy), talk)
    assert preparing_threads() <= before


def preparing_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "policy, preparing"}


def test_a_policy_that_runs_in_the_event_loop_prepares_nothing_ahead() -> None:
    policy = Doubling(PolicySpec("inline", SPEC.observation, SPEC.action, max_batch=2, inline=True))
    policy.release.set()

    async def talk(runner: Any) -> None:
        batches = [infer(runner, task(number, number)) for number in range(3)]
        assert [value((await batch)[0]) for batch in batches] == [0, 2, 4]
        assert preparing_threads() <= before

    before = preparing_threads()
    with_runner(ThreadRunner(lambda _: policy), talk)


# Whatever is asked

DOS = ("echo", "count", "error", "fail", "nan", "wide", "miscount", "unprepared")
BATCHES = st.lists(
    st.lists(st.tuples(st.integers(1, 3), st.integers(-1, 5), st.sampled_from(DOS)), min_size=1, max_size=4),
    min_size=1,
    max_size=8,
)


async def told(runner: Any, batches: Sequence[Sequence[Task]], *, at_once: bool) -> list[str]:
    """Every outcome as a text, of batches that the runner is given all at once, or one by one."""
    if at_once:
        found = await asyncio.gather(*(infer(runner, *batch) for batch in batches))
    else:
        found = [await infer(runner, *batch) for batch in batches]
    return [
        f"{outcome.chunk.actions} {outcome.chunk.state is None}"
        if isinstance(outcome, Answered)
        else f"{type(outcome).__name__} {outcome}"
        for outcomes in found
        for outcome in outcomes
    ]


def check(runner: Runner, programs: Sequence[Sequence[Sequence[tuple[int, int, str]]]]) -> None:
    async def talk(runner: Any) -> None:
        for number, program in enumerate(programs):
            one_by_one, at_once = (
                [[task(f"{number} {way} {session}", x, do) for session, x, do in batch] for batch in program]
                for way in ("one by one", "at once")
            )
            expected = await told(runner, one_by_one, at_once=False)
            assert await told(runner, at_once, at_once=True) == expected

    with_runner(runner, talk)


@given(BATCHES)
@settings(max_examples=200, deadline=None)
def test_outcomes_are_those_of_one_batch_at_a_time(program: list[list[tuple[int, int, str]]]) -> None:
    check(KINDS["thread"](recipe("Preparing")), [program])


@given(st.lists(BATCHES, min_size=10, max_size=20))
@settings(max_examples=10, deadline=None)
def test_outcomes_are_those_of_one_batch_at_a_time_in_a_process_too(
    programs: list[list[list[tuple[int, int, str]]]],
) -> None:
    check(KINDS["process"](recipe("Preparing")), programs)
