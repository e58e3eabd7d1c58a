"""Several runners of one policy: who gets what, and that no session notices."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import ConfigError, Overloaded, PolicyLost
from policyserve.core.policy import ActionChunk
from policyserve.engine.batcher import Batcher
from policyserve.engine.local import LocalEngine
from policyserve.engine.ready import ReadyPolicy
from policyserve.engine.routing import Router
from policyserve.engine.runner import OnDone, Task
from policyserve.engine.scheduler import Scheduler
from tests.engine.obedient import Obedient
from tests.engine.running import NOBODY, PATIENCE_S, mark, recipe, started, task, value


class HandRunner:
    """Keeps its batch until the test ends it; an observation of "state" leaves state."""

    def __init__(self) -> None:
        self.running: list[Task] = []
        self.forgotten: list[Hashable] = []
        self._on_done: OnDone | None = None

    inline = None

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        assert self._on_done is None
        self.running, self._on_done = list(batch), on_done

    def take_back(self, session: Hashable) -> None: ...

    def forget(self, session: Hashable) -> None:
        self.forgotten.append(session)

    def end(self, error: Any = None) -> None:
        on_done, self._on_done = self._on_done, None
        batch, self.running = self.running, []
        assert on_done is not None
        states = [one.session if one.observation == "state" else None for one in batch]
        on_done([error or Answered(ActionChunk(np.zeros(1), state), 0.0, 0.0) for state in states])

    @property
    def asked(self) -> list[Any]:
        return [one.observation for one in self.running]


class Bench:
    """A router over runners whose batches the test ends by hand."""

    def __init__(self, count: int = 2, max_queue: int = 100) -> None:
        self.runners = [HandRunner() for _ in range(count)]
        self.schedulers = [Scheduler(runner, Batcher(4, max_queue), 1_000.0, NOBODY) for runner in self.runners]
        self.router = Router(self.schedulers)
        self.outcomes: list[tuple[Any, Outcome]] = []

    def submit(self, session: Hashable, name: str) -> None:
        self.router.submit(Task(session, name), time.monotonic(), lambda outcome: self.outcomes.append((name, outcome)))

    def lose(self, place: int) -> None:
        self.schedulers[place].hold()
        self.router.move_from(self.schedulers[place])


def run(talk: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(talk(), PATIENCE_S)

    asyncio.run(bounded())


def test_a_request_goes_to_the_runner_that_has_fewest() -> None:
    async def talk() -> None:
        bench = Bench()
        for session in range(4):
            bench.submit(session, str(session))
        first, second = bench.runners
        assert (first.asked, second.asked) == (["0"], ["1"])
        first.end()
        assert first.asked == ["2"]
        second.end()
        assert second.asked == ["3"]
        first.end()
        assert bench.router.is_working
        second.end()
        assert not bench.router.is_working

    run(talk)


def test_of_runners_that_are_free_the_first_is_taken_and_one_without_a_policy_never() -> None:
    async def talk() -> None:
        bench = Bench(4)
        bench.schedulers[0].hold()
        for session in range(3):
            bench.submit(session, f"of {session}")
        assert [runner.asked for runner in bench.runners] == [[], ["of 0"], ["of 1"], ["of 2"]]
        bench.runners[2].end()
        bench.submit(3, "of 3")
        assert bench.runners[2].asked == ["of 3"]

    run(talk)


def test_of_runners_that_are_free_the_one_that_keeps_the_fewest_sessions_is_taken() -> None:
    async def talk() -> None:
        bench = Bench(3)
        for session in range(6):  # each is answered before the next comes
            bench.submit(session, "state")
            (runner,) = [one for one in bench.runners if one.running]
            assert runner is bench.runners[session % 3]
            runner.end()
        bench.router.forget(1)
        bench.submit(6, "state")
        assert bench.runners[1].running
        bench.router.forget(6)  # its answer comes when it has gone
        bench.runners[1].end()
        bench.lose(0)
        for session in (7, 8):
            bench.submit(session, "state")
            assert bench.runners[1].running
            bench.runners[1].end()
            bench.router.forget(session)

    asyncio.run(talk())


def test_one_sessions_requests_stay_in_order_at_one_runner() -> None:
    async def talk() -> None:
        bench = Bench()
        for name in "abc":
            bench.submit(1, name)
        for name in "abc":
            assert [runner.asked for runner in bench.runners] == [[name], []]
            bench.runners[0].end()
        assert [name for name, _ in bench.outcomes] == ["a", "b", "c"]
        await bench.router.drained()

    run(talk)


def test_a_session_stays_where_its_state_is_and_moves_when_it_has_none() -> None:
    async def talk() -> None:
        bench = Bench()
        first, second = bench.runners
        bench.submit(1, "state")
        first.end()
        bench.submit(2, "elsewhere")
        assert second.asked == ["elsewhere"]
        bench.submit(3, "busy")
        assert first.asked == ["busy"]
        second.end()
        bench.submit(1, "no state any more")  # there is room elsewhere, but its state is here
        assert second.asked == []
        first.end()
        assert first.asked == ["no state any more"]
        first.end()
        bench.submit(4, "busy")
        bench.submit(1, "moves")
        assert second.asked == ["moves"]

    run(talk)


def test_what_waits_at_a_lost_runner_goes_to_another_and_in_order() -> None:
    async def talk() -> None:
        bench = Bench()
        first, second = bench.runners
        bench.submit(1, "state")
        first.end()
        for name in "abc":
            bench.submit(1, name)
        assert first.asked == ["a"]
        bench.lose(0)
        assert second.asked == ["b"]
        first.end(PolicyLost("gone"))
        assert isinstance(bench.outcomes[-1][1], PolicyLost)
        second.end()
        assert second.asked == ["c"]
        bench.submit(2, "new")
        second.end()
        assert second.asked == ["new"]  # the lost one gets nothing

    run(talk)


def test_what_the_others_have_no_room_for_is_refused() -> None:
    async def talk() -> None:
        bench = Bench(max_queue=3)
        bench.submit(1, "a")
        bench.submit(2, "b")
        for name in ("c", "d"):
            bench.submit(1, name)
        bench.submit(2, "e")
        bench.lose(0)
        refused = [name for name, outcome in bench.outcomes if isinstance(outcome, Overloaded)]
        assert refused == ["d"]

    run(talk)


def test_without_any_runner_requests_wait_for_the_first_that_is_back() -> None:
    async def talk() -> None:
        bench = Bench()
        bench.lose(0)
        bench.lose(1)
        bench.submit(1, "a")
        assert [runner.asked for runner in bench.runners] == [[], []]
        for scheduler in bench.schedulers:
            scheduler.resume()
        assert sum(len(runner.asked) for runner in bench.runners) == 1

    run(talk)


def test_a_forgotten_session_is_forgotten_where_it_was() -> None:
    async def talk() -> None:
        bench = Bench()
        bench.submit(1, "a")
        bench.submit(1, "b")
        bench.router.forget(1)
        bench.router.forget(2)
        assert [runner.forgotten for runner in bench.runners] == [[1], []]
        bench.runners[0].end()
        assert bench.runners[0].asked == []

    run(talk)


# Real runners


@pytest.mark.parametrize("is_isolated", [False, True], ids=["thread", "process"])
def test_every_request_gets_its_own_answer_and_each_session_its_state(is_isolated: bool) -> None:
    async def talk() -> None:
        stages: list[str] = []
        engine = await started(recipe(), is_isolated=is_isolated, count=2, stages=stages.append)
        assert any("loading 1 more: warming up" in stage for stage in stages)
        seen: dict[tuple[int, int], float] = {}
        for turn in range(30):
            for session in range(10):
                do = "count" if session % 2 else "echo"
                key = (session, turn)
                engine.submit(
                    task(session, turn + 100 * session, do),
                    time.monotonic(),
                    lambda outcome, key=key: seen.update({key: value(outcome)}),
                )
        await engine.drained()
        assert len(seen) == 300
        for (session, turn), answer in seen.items():
            assert answer == (turn + 1 if session % 2 else turn + 100 * session)
        await engine.close(5)

    run(talk)


def test_one_replica_dies_and_the_other_serves(tmp_path: Path) -> None:
    async def talk() -> None:
        engine = await started(recipe(marks=tmp_path), is_isolated=True, count=2)

        def ask(session: int, x: float, do: str) -> asyncio.Future[Outcome]:
            done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            engine.submit(task(session, x, do), time.monotonic(), done.set_result)
            return done

        dying = ask(1, signal.SIGKILL, "die")
        assert value(await ask(2, 2.0, "echo")) == 2.0
        assert isinstance(await dying, PolicyLost)
        assert engine.stage == ""  # one is there
        assert value(await ask(1, 3.0, "echo")) == 3.0
        await engine.close(5)

    run(talk)


def test_replicas_work_at_the_same_time(tmp_path: Path) -> None:
    async def talk() -> None:
        engine = await started(recipe(marks=tmp_path), max_batch=1, count=2)
        answers: list[float] = []
        engine.submit(task(1, 1.0, "wait"), time.monotonic(), lambda outcome: answers.append(value(outcome)))
        await mark(tmp_path, "waiting")
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        engine.submit(task(2, 2.0), time.monotonic(), done.set_result)
        assert value(await done) == 2.0
        assert answers == []
        (tmp_path / "go").touch()
        await engine.drained()
        assert answers == [1.0]
        await engine.close(5)

    run(talk)


# Settings


def test_an_object_goes_to_one_runner_in_this_process() -> None:
    ready = ReadyPolicy(Obedient())
    with pytest.raises(
        ConfigError, match=r"isolate: a policy object cannot move: .*Recipe\('package.module:function'\)"
    ):
        LocalEngine(ready, lambda _: Batcher(1, 1), 1.0, is_isolated=True, count=1)
    with pytest.raises(ConfigError, match=r"replicas: one object is one policy: .*Recipe"):
        LocalEngine(ready, lambda _: Batcher(1, 1), 1.0, count=2)


@pytest.mark.parametrize("device", ["gpu1", "cuda", "cuda:x", "cuda:1", ""])
def test_a_device_that_is_none_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    with pytest.raises(ConfigError, match=f"devices: .*{device}"):
        LocalEngine(recipe(), lambda _: Batcher(1, 1), 1.0, is_isolated=True, devices=[device])


def test_each_process_sees_its_own_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-abc")

    async def talk() -> None:
        devices = ["cuda:1", "cpu"]
        engine = await started(recipe("load_with_devices"), max_batch=1, is_isolated=True, count=2, devices=devices)
        seen: list[Any] = []
        for session in range(2):
            engine.submit(
                task(session),
                time.monotonic(),
                lambda one: seen.append(one.chunk.extras["devices"] if isinstance(one, Answered) else one),
            )
        await engine.drained()
        assert sorted(seen) == ["", "GPU-abc"]
        await engine.close(5)

    run(talk)


def test_a_scheduler_that_comes_gets_requests_and_one_that_leaves_answers_what_it_has() -> None:
    async def talk() -> None:
        bench = Bench(count=1)
        first = bench.schedulers[0]
        bench.submit(1, "a")
        bench.router.remove(first)  # the last one stays
        bench.runners.append(HandRunner())
        second = Scheduler(bench.runners[1], Batcher(4, 100), 1_000.0, NOBODY)
        bench.router.add(second)
        bench.submit(2, "b")
        assert [runner.asked for runner in bench.runners] == [["a"], ["b"]]
        bench.router.remove(first)
        bench.submit(1, "behind a")  # a session's requests keep their order
        bench.submit(3, "c")
        assert bench.router.load == 4
        bench.runners[0].end()
        assert bench.runners[0].asked == ["behind a"]
        bench.runners[0].end()
        bench.submit(1, "later")
        bench.runners[1].end()
        assert bench.runners[1].asked == ["c", "later"]
        assert bench.router.is_working
        bench.runners[1].end()
        await bench.router.drained()
        assert bench.router.load == 0
        assert len(bench.outcomes) == 5

    run(talk)


def test_a_session_whose_state_travels_stays_with_nobody() -> None:
    async def talk() -> None:
        runners = [HandRunner(), HandRunner()]
        schedulers = [Scheduler(runner, Batcher(4, 100), 1_000.0, NOBODY) for runner in runners]
        router = Router(schedulers, state_travels=True)
        router.submit(Task(1, "state"), time.monotonic(), lambda _: None)
        runners[0].end()
        router.submit(Task(2, "x"), time.monotonic(), lambda _: None)
        router.submit(Task(1, "state"), time.monotonic(), lambda _: None)
        assert [runner.asked for runner in runners] == [["x"], ["state"]]

    run(talk)


def test_a_session_whose_scheduler_has_left_goes_on_at_another() -> None:
    async def talk() -> None:
        bench = Bench()
        bench.submit(1, "state")
        bench.runners[0].end()
        bench.router.remove(bench.schedulers[0])
        bench.submit(1, "state")
        assert bench.runners[1].asked == ["state"]

    run(talk)
