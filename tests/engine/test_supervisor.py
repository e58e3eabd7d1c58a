"""Runners that are replaced: what is told, what waits, and when it gives up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.effects import Outcome
from policyserve.core.errors import DeadlineExceeded, PolicyLost
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.batcher import Batcher
from policyserve.engine.isolated.runner import ProcessRunner
from policyserve.engine.local import LocalEngine
from policyserve.engine.ready import ReadyPolicy
from policyserve.engine.runner import ThreadRunner
from policyserve.engine.scheduler import Scheduler
from policyserve.engine.supervisor import Supervisor
from policyserve.policies.fakes import SlowPolicy
from tests.engine.obedient import Obedient
from tests.engine.running import NOBODY, PATIENCE_S, ask, mark, recipe, started, task, until, value

KINDS = pytest.mark.parametrize("is_isolated", [False, True], ids=["thread", "process"])


class Bench:
    """A started set of runners behind what takes requests."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine

    async def ask(self, x: float = 0.0, do: str = "echo", session: Any = 1) -> Outcome:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.engine.submit(task(session, x, do), time.monotonic(), done.set_result)
        return await asyncio.wait_for(done, PATIENCE_S)

    async def until_up(self) -> None:
        await until(lambda: not self.engine.stage)


def serve(
    load: Any,
    talk: Callable[[Bench], Awaitable[None]],
    *,
    is_isolated: bool = False,
    count: int = 1,
    request_timeout_s: float = 1_000.0,
) -> None:
    async def run() -> None:
        engine = await started(load, request_timeout_s=request_timeout_s, is_isolated=is_isolated, count=count)
        bench = Bench(engine)
        try:
            await asyncio.wait_for(talk(bench), PATIENCE_S)
        finally:
            await engine.close(5)

    asyncio.run(run())


def test_a_process_that_dies_is_started_again_and_waiting_requests_are_answered(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def talk(bench: Bench) -> None:
        dying = asyncio.ensure_future(bench.ask(signal.SIGKILL, "die"))
        await mark(tmp_path, "dying")
        waiting = [asyncio.ensure_future(bench.ask(number, session=number)) for number in range(2, 9)]
        assert isinstance(await dying, PolicyLost)
        assert bench.engine.stage == "restarting the policy"
        assert [value(await one) for one in waiting] == list(range(2, 9))
        assert bench.engine.stage == ""

    serve(recipe(marks=tmp_path), talk, is_isolated=True)
    assert "the policy is replaced, and what it remembered of its sessions is gone: its process" in caplog.text
    assert "the policy is back after" in caplog.text


def test_state_is_gone_with_the_process() -> None:
    async def talk(bench: Bench) -> None:
        assert [value(await bench.ask(do="count")) for _ in range(2)] == [1, 2]
        await bench.ask(signal.SIGKILL, "die", session=2)
        assert value(await bench.ask(do="count")) == 1

    serve(recipe(), talk, is_isolated=True)


@KINDS
def test_a_hang_ends_at_the_deadline_and_the_others_go_on(is_isolated: bool, tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        hanging = asyncio.ensure_future(bench.ask(do="wait"))
        await mark(tmp_path, "waiting")
        outcome = await hanging
        assert isinstance(outcome, DeadlineExceeded)
        assert "no answer within 1 s; the policy is still at it" in str(outcome)
        (tmp_path / "go").touch()  # the thread that was left ends, and its answer goes nowhere
        await bench.until_up()
        for number in range(3):
            assert value(await bench.ask(number)) == number

    serve(recipe(marks=tmp_path), talk, is_isolated=is_isolated, request_timeout_s=1.0)


@KINDS
def test_a_hang_while_preparing_is_a_hang(is_isolated: bool, tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        first = asyncio.ensure_future(bench.ask(1, "wait"))
        await mark(tmp_path, "waiting")
        behind = [asyncio.ensure_future(bench.ask(do="linger", session=number)) for number in range(2, 6)]
        await mark(tmp_path, "lingering")
        (tmp_path / "go").touch()
        assert value(await first) == 1.0
        assert {type(one) for one in await asyncio.gather(*behind)} == {DeadlineExceeded}
        await until(lambda: bench.engine.stage)
        if is_isolated:  # the process is killed while it lingers, and another one started
            await bench.until_up()
        (tmp_path / "linger").touch()  # the threads that were left end
        await bench.until_up()
        assert value(await bench.ask(2)) == 2.0
        assert not (tmp_path / "lingered").exists()

    serve(recipe("Preparing", marks=tmp_path), talk, is_isolated=is_isolated, request_timeout_s=1.0)


@KINDS
def test_a_poisoned_gpu_costs_its_batch_and_nothing_else(is_isolated: bool) -> None:
    async def talk(bench: Bench) -> None:
        assert isinstance(await bench.ask(6, "fail"), PolicyLost)
        assert value(await bench.ask(3.0)) == 3.0

    serve(recipe(), talk, is_isolated=is_isolated)


def test_in_a_thread_a_poisoned_gpu_is_told_to_last(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(bench: Bench) -> None:
        await bench.ask(6, "fail")

    serve(recipe(), talk)
    assert "--isolate process gives the policy one of its own" in caplog.text


def test_a_ready_policy_is_taken_up_again_by_another_thread() -> None:
    policy = Obedient()

    async def talk(bench: Bench) -> None:
        await bench.ask(6, "fail")
        assert value(await bench.ask(3.0)) == 3.0

    serve(ReadyPolicy(policy), talk)


def test_threads_that_hang_are_not_abandoned_without_end(caplog: pytest.LogCaptureFixture) -> None:
    policy = SlowPolicy(1)

    async def talk(bench: Bench) -> None:
        observation = {"obs": task(1).observation["x"]}

        async def hang() -> Outcome:
            done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            bench.engine.submit(task(1)._replace(observation=observation), time.monotonic(), done.set_result)
            return await done

        for _ in range(3):
            await bench.until_up()
            assert isinstance(await hang(), DeadlineExceeded)
        await until(lambda: "stays down until one of its 3 calls that hang returns" in caplog.text)
        assert bench.engine.stage
        assert isinstance(await hang(), DeadlineExceeded)  # it waited for a policy in vain
        policy.release.set()
        await bench.until_up()

    serve(ReadyPolicy(policy), talk, request_timeout_s=0.05)


@KINDS
def test_a_policy_that_does_not_load_again_is_tried_until_it_does(
    is_isolated: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(bench: Bench) -> None:
        await bench.ask(6, "fail")
        await until((tmp_path / "attempt2").exists)  # the first load and two that failed
        assert bench.engine.stage == "restarting the policy"
        (tmp_path / "heal").touch()
        assert value(await bench.ask(3.0)) == 3.0

    serve(recipe("load_once", marks=tmp_path), talk, is_isolated=is_isolated)
    assert "the policy could not be replaced: ValueError: the disk is gone" in caplog.text


@KINDS
def test_a_policy_whose_metadata_holds_arrays_is_known_again(is_isolated: bool, tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        await bench.ask(6, "fail")
        assert value(await bench.ask(3.0)) == 3.0

    serve(recipe("load_with_metadata", marks=tmp_path), talk, is_isolated=is_isolated)


def test_a_policy_that_comes_back_with_another_spec_is_not_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(bench: Bench) -> None:
        await bench.ask(6, "fail")
        await until(lambda: "came back with another spec" in caplog.text)
        assert bench.engine.stage

    serve(recipe("load_other_spec_later", marks=tmp_path), talk)


@KINDS
def test_a_policy_that_comes_back_with_room_for_fewer_is_asked_for_fewer(
    is_isolated: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(bench: Bench) -> None:
        lost = asyncio.ensure_future(bench.ask(6, "fail"))
        waiting = [asyncio.ensure_future(bench.ask(number, session=number)) for number in range(2, 9)]
        assert isinstance(await lost, PolicyLost)
        assert [value(await one) for one in waiting] == list(range(2, 9))

    serve(recipe("load_smaller_later", marks=tmp_path), talk, is_isolated=is_isolated)
    assert "the policy now takes 2 at a time, before 8" in caplog.text


def test_a_process_that_is_lost_before_anybody_listens_is_replaced() -> None:
    async def run() -> None:
        supervisor = Supervisor(lambda: ProcessRunner(recipe()), 1)
        await supervisor.start(lambda _: None)
        supervisor.replace("a test wants it")
        assert supervisor.stage
        await until(lambda: not supervisor.stage)
        assert value(await ask(supervisor, 2.0)) == 2.0
        await supervisor.close(5)

    asyncio.run(run())


def test_a_server_that_stops_while_its_policy_is_restarted_leaves_nothing() -> None:
    async def run() -> None:
        made: list[ProcessRunner] = []

        def make() -> ProcessRunner:
            made.append(ProcessRunner(recipe()))
            return made[-1]

        supervisor = Supervisor(make, 1)
        await supervisor.start(lambda _: None)
        supervisor.replace("a test wants it")
        await until(lambda: len(made) == 2)
        await supervisor.close(5)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_an_inline_policy_is_not_asked_while_it_is_down() -> None:
    async def run() -> None:
        spec = PolicySpec("reflex", {"x": ArraySpec((1,))}, None, inline=True)
        runner = ThreadRunner(lambda _: FunctionPolicy(lambda observation: observation["x"], spec))
        supervisor = Supervisor(lambda: runner, 3)
        assert supervisor.inline is None
        await supervisor.start(lambda _: None)
        assert supervisor.inline is runner.inline is not None
        supervisor.replace("a test wants it")
        assert supervisor.inline is None
        await supervisor.close(5)

    asyncio.run(run())


def test_a_batch_that_hangs_is_waited_for_where_nobody_can_replace_its_runner(tmp_path: Path) -> None:
    async def run() -> None:
        runner = ThreadRunner(recipe(marks=tmp_path))
        await runner.start(lambda _: None)
        scheduler = Scheduler(runner, Batcher(4, 100), 0.05, NOBODY)
        outcomes: list[Outcome] = []
        scheduler.submit(task(1, do="wait"), time.monotonic(), outcomes.append)
        await until(lambda: outcomes)
        assert isinstance(outcomes[0], DeadlineExceeded)
        assert scheduler.load == 1
        (tmp_path / "go").touch()
        await asyncio.wait_for(scheduler.drained(), PATIENCE_S)
        assert len(outcomes) == 1
        await runner.close(5)

    asyncio.run(run())
