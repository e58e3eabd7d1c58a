"""The policy's own thread: the event loop lives while it works, and one input's trouble is its own."""

from __future__ import annotations

import asyncio
import re
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import BadAction, BadObservation, PolicyFailed, PolicyLost, PolicyserveError
from policyserve.core.policy import ActionChunk, FunctionPolicy, Policy, PolicyInput, open_spec
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.answering import Answering, batch_buckets, run_batch
from policyserve.engine.runner import Task, ThreadRunner
from policyserve.policies.fakes import EchoPolicy

SPEC = PolicySpec("policy", {"x": ArraySpec((1,))}, ArraySpec((1,)), max_batch=8)


class Batched:
    """A policy of one function over the whole batch; keeps what it was called with."""

    def __init__(self, answer: Callable[[Sequence[PolicyInput]], Any], spec: PolicySpec = SPEC) -> None:
        self.spec = spec
        self.answer = answer
        self.sizes: list[int] = []
        self.closed_in: str | None = None

    def infer(self, batch: Sequence[PolicyInput]) -> Any:
        self.sizes.append(len(batch))
        return self.answer(batch)

    def close(self) -> None:
        self.closed_in = threading.current_thread().name


def echo(batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
    return [ActionChunk(one.observation["x"]) for one in batch]


def task(session: int, x: float = 0.0) -> Task:
    return Task(session, {"x": np.array([x], np.float32)})


def infer(runner: ThreadRunner, *batch: Task) -> asyncio.Future[Sequence[Outcome]]:
    done: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
    runner.infer(batch, done.set_result)
    return done


def with_runner(policy: Policy, talk: Callable[[ThreadRunner], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        runner = ThreadRunner(lambda _: policy)
        await runner.start(lambda _: None)
        try:
            return await asyncio.wait_for(talk(runner), 30)
        finally:
            await runner.close(5)

    return asyncio.run(run())


def value(outcome: Outcome) -> float:
    assert isinstance(outcome, Answered)
    return float(outcome.chunk.actions[0])


# Life cycle


def test_loading_inferring_and_closing_happen_in_the_policys_own_thread() -> None:
    threads: list[str] = []
    policy = Batched(echo)

    def load(_: Callable[[str], None]) -> Policy:
        threads.append(threading.current_thread().name)
        return policy

    async def run() -> PolicySpec:
        runner = ThreadRunner(load)
        spec = await runner.start(lambda _: None)
        await runner.close(5)
        return spec

    assert asyncio.run(run()) is SPEC
    assert threads == ["policy"]
    assert policy.closed_in == "policy"


@pytest.mark.parametrize("error", [ValueError("no such file"), MemoryError()])
def test_what_a_loader_raises_reaches_who_started_it(error: Exception) -> None:
    def load(_: Callable[[str], None]) -> Policy:
        raise error

    async def run() -> None:
        runner = ThreadRunner(load)
        with pytest.raises(type(error)) as caught:
            await runner.start(lambda _: None)
        assert caught.value is error
        await asyncio.wait_for(runner.close(5), 30)

    asyncio.run(run())


def test_every_bucket_is_warmed_before_it_is_ready() -> None:
    policy = Batched(echo, PolicySpec("p", SPEC.observation, SPEC.action, max_batch=6))
    stages: list[str] = []

    async def run() -> None:
        runner = ThreadRunner(lambda _: policy)
        await runner.start(stages.append)
        assert policy.sizes == [1, 2, 4, 6]
        await runner.close(5)

    asyncio.run(run())
    assert stages == [f"warming up, batch {size}" for size in (1, 2, 4, 6)]


@pytest.mark.parametrize(("max_batch", "buckets"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])])
def test_buckets_are_powers_of_two_up_to_max_batch(max_batch: int, buckets: list[int]) -> None:
    assert list(batch_buckets(Batched(echo, PolicySpec("p", {}, None, max_batch=max_batch)))) == buckets


def test_a_policy_may_name_its_own_buckets() -> None:
    policy = Batched(echo)
    policy.buckets = (1, 5)  # type: ignore[attr-defined]
    assert list(batch_buckets(policy)) == [1, 5]


def test_a_policy_without_a_spec_is_not_warmed() -> None:
    policy = Batched(echo, open_spec("open"))

    async def talk(runner: ThreadRunner) -> None:
        assert policy.sizes == []

    with_runner(policy, talk)


def test_a_policy_that_cannot_answer_zeros_does_not_start() -> None:
    def refuse(batch: Sequence[PolicyInput]) -> Any:
        raise ZeroDivisionError("x is 0")

    async def run() -> None:
        with pytest.raises(PolicyFailed, match=r"warm-up with zeros failed.*x is 0"):
            await ThreadRunner(lambda _: Batched(refuse)).start(lambda _: None)

    asyncio.run(run())


def test_close_gives_up_on_a_policy_that_hangs() -> None:
    started, release = threading.Event(), threading.Event()

    def hang(batch: Sequence[PolicyInput]) -> Any:
        started.set()
        release.wait(30)
        return echo(batch)

    async def run() -> None:
        policy = Batched(hang, PolicySpec("p", None, None))
        runner = ThreadRunner(lambda _: policy)
        await runner.start(lambda _: None)
        infer(runner, task(1))
        await asyncio.to_thread(started.wait, 30)
        await runner.close(0.01)
        assert policy.closed_in is None
        release.set()

    asyncio.run(run())


def test_a_policy_that_fails_to_close_is_logged_and_left() -> None:
    class Stubborn(Batched):
        def close(self) -> None:
            raise RuntimeError("still busy")

    async def talk(runner: ThreadRunner) -> float:
        (outcome,) = await infer(runner, task(1, 5.0))
        return value(outcome)

    assert with_runner(Stubborn(echo), talk) == 5.0


# The loop lives


def test_the_event_loop_lives_while_the_policy_blocks() -> None:
    started, release = threading.Event(), threading.Event()

    def block(batch: Sequence[PolicyInput]) -> Any:
        started.set()
        assert release.wait(30)
        return echo(batch)

    async def talk(runner: ThreadRunner) -> None:
        answer = infer(runner, task(1, 3.0))
        await asyncio.to_thread(started.wait, 30)
        for _ in range(1_000):
            await asyncio.sleep(0)  # the loop turns: a thousand times within one call of the policy
        assert not answer.done()
        release.set()
        assert [value(one) for one in await answer] == [3.0]

    with_runner(Batched(block, PolicySpec("p", None, None)), talk)


# One batch


def test_answers_keep_the_order_of_the_batch() -> None:
    async def talk(runner: ThreadRunner) -> list[float]:
        return [value(one) for one in await infer(runner, *(task(number, number) for number in range(8)))]

    assert with_runner(Batched(echo), talk) == list(range(8))


def inputs(*xs: float) -> list[PolicyInput]:
    return [PolicyInput({"x": np.array([x], np.float32)}) for x in xs]


def test_a_poisoned_input_fails_alone() -> None:
    def picky(batch: Sequence[PolicyInput]) -> Any:
        if any(one.observation["x"] < 0 for one in batch):
            raise ValueError("negative")
        return echo(batch)

    policy = Batched(picky)
    first, bad, last = run_batch(policy, inputs(1, -1, 2))
    assert isinstance(first, ActionChunk)
    assert isinstance(last, ActionChunk)
    assert isinstance(bad, PolicyFailed)
    assert "policy raised ValueError: negative" in str(bad)
    assert isinstance(bad.__cause__, ValueError)
    assert policy.sizes == [3, 1, 1, 1]


def test_an_error_in_place_of_a_chunk_fails_that_input_without_another_call() -> None:
    error = BadObservation("x", "more", "less")
    policy = Batched(lambda batch: [error if one.observation["x"] < 0 else echo([one])[0] for one in batch])
    first, bad = run_batch(policy, inputs(1, -1))
    assert isinstance(first, ActionChunk)
    assert bad is error
    assert policy.sizes == [2]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_among_good_actions_fails_alone(poison: float) -> None:
    first, bad = run_batch(Batched(echo), inputs(1, poison))
    assert isinstance(first, ActionChunk)
    assert isinstance(bad, BadAction)


@pytest.mark.parametrize(
    "answer", [lambda batch: [], lambda batch: echo(batch) * 2, lambda batch: None, lambda batch: 3]
)
def test_a_wrong_count_of_answers_fails_every_input(answer: Callable[[Any], Any]) -> None:
    outcomes = run_batch(Batched(answer), inputs(1, 2))
    assert len(outcomes) == 2
    assert all(isinstance(one, PolicyFailed) for one in outcomes)


@pytest.mark.parametrize("answer", [None, "left", np.zeros(1), {"actions": [1]}, ActionChunk("left")])  # type: ignore[arg-type]
def test_an_answer_that_is_no_chunk_of_actions_fails(answer: Any) -> None:
    (outcome,) = run_batch(Batched(lambda batch: [answer]), inputs(1))
    assert isinstance(outcome, PolicyFailed)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (None, r"policy answered NoneType, expected a list of ActionChunks, one for each input \(1\)"),
        ({"actions": [1]}, "policy answered dict, expected a list of ActionChunks"),
        (ActionChunk(np.zeros(1)), "policy answered ActionChunk, expected a list of ActionChunks"),
        ([{"actions": [1]}], "policy answered dict for an input, expected an ActionChunk"),
        ([np.zeros(1)], "policy answered ndarray for an input, expected an ActionChunk"),
    ],
)
def test_an_answer_of_another_form_is_told_by_what_was_expected(answers: Any, said: str) -> None:
    (outcome,) = run_batch(Batched(lambda batch: answers), inputs(1))
    assert isinstance(outcome, PolicyFailed)
    assert re.search(said, str(outcome))


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), MemoryError(), RecursionError(), StopIteration()]
)
def test_no_exception_ends_the_policys_thread(error: BaseException) -> None:
    def fall(batch: Sequence[PolicyInput]) -> Any:
        if batch[0].observation["x"] < 0:
            raise error
        return echo(batch)

    async def talk(runner: ThreadRunner) -> None:
        (bad,) = await infer(runner, task(1, -1.0))
        assert isinstance(bad, PolicyFailed)
        (good,) = await infer(runner, task(1, 4.0))
        assert value(good) == 4.0

    with_runner(Batched(fall), talk)


def test_a_policy_may_write_its_next_answer_over_its_last() -> None:
    buffer = np.zeros(1, np.float32)

    def reuse(batch: Sequence[PolicyInput]) -> Any:
        buffer[:] = batch[0].observation["x"]
        return [ActionChunk(buffer)]

    async def talk(runner: ThreadRunner) -> list[float]:
        answers = [infer(runner, task(1, number)) for number in range(5)]
        return [value((await one)[0]) for one in answers]

    assert with_runner(Batched(reuse), talk) == [0, 1, 2, 3, 4]


# State


def counting(batch: Sequence[PolicyInput]) -> Any:
    """Answers how many of this session's calls it has seen; forgets at x < 0."""
    chunks: list[ActionChunk] = []
    for one in batch:
        count = (one.state or 0) + 1
        chunks.append(ActionChunk(np.array([count], np.float32), state=None if one.observation["x"] < 0 else count))
    return chunks


def test_each_session_has_its_own_state_until_it_is_forgotten() -> None:
    async def talk(runner: ThreadRunner) -> list[list[float]]:
        seen: list[list[float]] = []
        for batch in ([task(1), task(2)], [task(1)], [task(1), task(2)]):
            seen.append([value(one) for one in await infer(runner, *batch)])
        runner.forget(1)
        seen.append([value(one) for one in await infer(runner, task(1), task(2))])
        return seen

    assert with_runner(Batched(counting), talk) == [[1, 1], [2], [3, 2], [1, 3]]


def test_a_chunk_without_state_drops_it() -> None:
    async def talk(runner: ThreadRunner) -> list[float]:
        return [value((await infer(runner, task(1, x)))[0]) for x in (0, 0, -1, 0)]

    assert with_runner(Batched(counting), talk) == [1, 2, 3, 1]


def test_forgetting_while_a_call_runs_drops_what_that_call_left() -> None:
    started, release = threading.Event(), threading.Event()

    def slow(batch: Sequence[PolicyInput]) -> Any:
        started.set()
        assert release.wait(30)
        return counting(batch)

    async def talk(runner: ThreadRunner) -> float:
        running = infer(runner, task(1))
        await asyncio.to_thread(started.wait, 30)
        runner.forget(1)
        release.set()
        await running
        return value((await infer(runner, task(1)))[0])

    assert with_runner(Batched(slow, PolicySpec("p", None, None)), talk) == 1


def test_a_failed_call_keeps_the_state_before_it() -> None:
    policy = Batched(
        lambda batch: [BadObservation("x", "0", "1")] if batch[0].observation["x"] > 0 else counting(batch)
    )

    async def talk(runner: ThreadRunner) -> list[float]:
        seen = [value((await infer(runner, task(1)))[0])]
        (failed,) = await infer(runner, task(1, 1.0))
        assert isinstance(failed, BadObservation)
        return [*seen, value((await infer(runner, task(1)))[0])]

    assert with_runner(policy, talk) == [1, 2]


def test_a_policy_whose_spec_is_none_is_told_by_its_class() -> None:
    class Odd(EchoPolicy):
        spec: Any = "(4,)"

        def __init__(self) -> None:
            """Without EchoPolicy's spec."""

    with pytest.raises(PolicyFailed, match=r"^Odd\.spec: expected a PolicySpec, got str$"):
        with_runner(Odd(), lambda _: asyncio.sleep(0))


def test_a_thread_outlives_a_lack_of_memory_in_what_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answering.answer

    def answer_or_fail(self: Answering, batch: Sequence[Task], *rest: Any) -> Any:
        if len(batch) > 1:
            raise MemoryError
        return answer(self, batch, *rest)

    monkeypatch.setattr(Answering, "answer", answer_or_fail)

    async def talk(runner: ThreadRunner) -> float:
        failures = await infer(runner, Task(1, np.array([2.0])), Task(2, np.array([2.0])))
        assert [str(one) for one in failures] == ["twice: MemoryError"] * 2
        return value((await infer(runner, Task(1, np.array([2.0]))))[0])

    assert with_runner(FunctionPolicy(lambda x: x * 2, open_spec("twice")), talk) == 4


def test_a_function_policy_runs_too() -> None:
    async def talk(runner: ThreadRunner) -> float:
        return value((await infer(runner, Task(1, np.array([2.0]))))[0])

    assert with_runner(FunctionPolicy(lambda x: x * 2, open_spec("twice")), talk) == 4


def test_an_inline_policy_answers_in_the_loop_and_moves_to_a_thread_when_it_is_slow(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policyserve.engine.inline._LIMIT_MS", 100.0)  # a busy machine takes 1 ms for nothing
    threads: list[str] = []
    is_slow = False

    def act(observation: Any) -> Any:
        threads.append(threading.current_thread().name)
        if is_slow:
            threading.Event().wait(0.15)
        return observation["obs"]

    spec = PolicySpec("reflex", {"obs": ArraySpec((2,))}, ArraySpec((2,)), inline=True)

    async def run() -> None:
        nonlocal is_slow
        runner = ThreadRunner(lambda _on_stage: FunctionPolicy(act, spec))
        await runner.start(lambda _stage: None)
        threads.clear()

        async def ask() -> None:
            asked = Task("a", {"obs": np.zeros(2, np.float32)})
            if runner.inline is None:
                await infer(runner, asked)
            else:
                runner.inline.answer([asked])

        await ask()
        is_slow = True
        for _ in range(4):
            await ask()
        await runner.close(5)

    asyncio.run(run())
    assert threads == [*["MainThread"] * 4, "policy"]
    assert "reflex is inline but took" in caplog.text


def test_an_inline_batch_keeps_each_sessions_state_and_is_slow_only_if_each_of_its_requests_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("policyserve.engine.inline._LIMIT_MS", 100.0)
    spec = PolicySpec("reflex", {"x": ArraySpec((1,))}, None, max_batch=8, inline=True)

    def slow(batch: Sequence[PolicyInput]) -> Any:
        threading.Event().wait(0.02 * len(batch))
        return counting(batch)

    async def talk(runner: ThreadRunner) -> list[list[float]]:
        seen: list[list[float]] = []
        for _ in range(5):
            assert runner.inline is not None
            outcomes = runner.inline.answer([task(session) for session in range(8)])
            seen.append([value(outcome) for outcome in outcomes])
        assert runner.inline is not None
        last = runner.inline.answer([task(3)])
        return [*seen, [value(last[0])]]

    assert with_runner(Batched(slow, spec), talk) == [[call] * 8 for call in range(1, 6)] + [[6]]


@pytest.mark.parametrize("size", [1, 2])
def test_an_inline_policys_observations_are_let_go_of_once_they_are_answered(size: int) -> None:
    spec = PolicySpec("reflex", {"x": ArraySpec((1,))}, None, max_batch=2, inline=True)

    async def talk(runner: ThreadRunner) -> None:
        asked = [task(session) for session in range(size)]
        are_held = [weakref.ref(one.observation["x"]) for one in asked]
        assert runner.inline is not None
        outcomes = runner.inline.answer(asked)
        assert [value(one) for one in outcomes] == [1.0] * size
        del asked
        assert [held() for held in are_held] == [None] * size

    with_runner(Batched(lambda batch: [ActionChunk(np.ones(1)) for _ in batch], spec), talk)


def test_an_inline_policy_that_loses_its_gpu_in_a_batch_says_so() -> None:
    def lose(batch: Sequence[PolicyInput]) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async def talk(runner: ThreadRunner) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        assert runner.inline is not None
        outcomes = runner.inline.answer([task(1), task(2)])
        assert [type(outcome) for outcome in outcomes] == [PolicyLost] * 2
        assert ["illegal memory access" in reason for reason in reasons] == [True]

    with_runner(Batched(lose, PolicySpec("p", None, None, max_batch=2, inline=True)), talk)
