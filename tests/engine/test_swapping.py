"""A policy that is exchanged while it serves: who answers, what stays if it fails, and what is refused."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError, DeadlineExceeded, NotReady, PolicyChanged
from policyserve.core.leaf_specs import ArraySpec
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import PolicySpec
from policyserve.engine.batcher import Batcher
from policyserve.engine.engine import Change, ChangingEngine, Engine
from policyserve.engine.local import LocalEngine
from policyserve.engine.swapping import SwappingEngine
from policyserve.engine.swaps import NextPolicy, Swap
from tests.engine.exchanged import HandEngine, ask, named
from tests.engine.running import NOBODY, PATIENCE_S, task, until, value
from tests.engine.running import recipe as recipe_of

OTHER = PolicySpec("other", {"state": ArraySpec((8,))}, None)


class Bench:
    """A started engine, and what its server is told. first: the engines of the first policy."""

    def __init__(self, *first: HandEngine, request_timeout_s: float = 60.0, may_come_back: bool = True) -> None:
        self.first = first or (HandEngine(1),)
        policy = named(*self.first, may_come_back=may_come_back)
        self.engine = SwappingEngine(policy, request_timeout_s, 10)
        self.changes: list[Change] = []
        self.engine.on_change = self.changes.append

    def swap(self, engine: HandEngine, *again: HandEngine, **how: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.engine.swap(named(engine, *again), Swap(**how)))

    async def is_coming(self, engine: HandEngine) -> None:
        await until(lambda: "warming up" in self.engine.swapping)


def converse(bench: Bench, talk: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        await bench.engine.start(lambda _: None, NOBODY)
        try:
            await asyncio.wait_for(talk(bench), PATIENCE_S)
        finally:
            await bench.engine.close(1)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def loading(number: int = 2, **more: Any) -> HandEngine:
    """An engine whose loading ends when the test says so."""
    engine = HandEngine(number, **more)
    engine.may_load = asyncio.Event()
    return engine


def test_it_is_an_engine() -> None:
    assert isinstance(Bench().engine, Engine)
    assert isinstance(Bench().engine, ChangingEngine)


def test_the_next_policy_loads_behind_the_one_before_and_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def talk(bench: Bench) -> None:
        second = loading()
        swapping = bench.swap(second)
        await bench.is_coming(second)
        assert bench.engine.swapping.startswith("checkpoint 2, warming up, since 0 s")
        assert bench.engine.stage == ""
        assert bench.engine.is_working
        assert ask(bench.engine) == [1]
        assert second.may_load is not None
        second.may_load.set()
        swapped = await swapping
        assert (swapped.version, swapped.title, swapped.spec.name) == (2, "checkpoint 2", "policy 2")
        assert ask(bench.engine) == [2]
        assert bench.changes == [Change(second.spec, None, True)]
        assert (bench.engine.title, bench.engine.before, bench.engine.swapping) == ("checkpoint 2", "checkpoint 1", "")
        await until(lambda: bench.first[0].closed)

    converse(Bench(), talk)
    assert "loading checkpoint 2, to take over from checkpoint 1" in caplog.text
    assert "checkpoint 2 answers after 0." in caplog.text


def test_what_was_submitted_before_is_answered_by_the_one_before() -> None:
    async def talk(bench: Bench) -> None:
        bench.first[0].is_held = True
        early = ask(bench.engine)
        await bench.swap(HandEngine(2))
        assert ask(bench.engine) == [2]
        bench.first[0].answer()
        assert early == [1]

    converse(Bench(), talk)


def test_running_sessions_may_end_on_the_one_before() -> None:
    async def talk(bench: Bench) -> None:
        ask(bench.engine, 1)
        await bench.swap(HandEngine(2), when="next-session")
        assert ask(bench.engine, 1) == [1]
        assert ask(bench.engine, 2) == [2]
        assert [bench.engine.version_of(session) for session in (1, 2, 3)] == [1, 2, 2]
        assert bench.changes[-1].sessions_move is False
        with pytest.raises(ConfigError, match=r"1 sessions still end .* take them over with when=now"):
            await bench.swap(HandEngine(3), when="next-session")
        bench.engine.forget(1)
        await until(lambda: bench.first[0].closed)
        await bench.swap(HandEngine(3), when="next-session")

    converse(Bench(), talk)


def test_one_that_cannot_be_loaded_leaves_the_one_before_as_it_was() -> None:
    async def talk(bench: Bench) -> None:
        broken = HandEngine(2, error=ConfigError("step_7/state.eqx: record 3: the file ends before it"))
        with pytest.raises(ConfigError, match="the file ends before it"):
            await bench.swap(broken)
        assert ask(bench.engine) == [1]
        assert broken.closed
        assert bench.changes == []
        assert bench.engine.version == 1
        assert bench.engine.before is None
        await bench.swap(HandEngine(3))
        assert ask(bench.engine) == [3]

    converse(Bench(), talk)


def test_one_that_never_loads_is_given_up() -> None:
    async def talk(bench: Bench) -> None:
        with pytest.raises(ConfigError, match=r"it has not loaded within 0\.01 s \(timeout_s\); warming up"):
            await bench.swap(loading(), timeout_s=0.01)
        assert ask(bench.engine) == [1]

    converse(Bench(), talk)


def test_what_the_server_refuses_does_not_take_over() -> None:
    async def talk(bench: Bench) -> None:
        def refuse(change: Change) -> None:
            raise ConfigError("metadata/spec: expected another key")

        bench.engine.on_change = refuse
        with pytest.raises(ConfigError, match="expected another key"):
            await bench.swap(HandEngine(2))
        assert ask(bench.engine) == [1]

    converse(Bench(), talk)


def test_another_spec_is_refused_with_the_keys_that_differ_unless_it_is_forced() -> None:
    async def talk(bench: Bench) -> None:
        with pytest.raises(ConfigError, match=r"another spec.*force.*: observation: anything, now 1 keys"):
            await bench.swap(HandEngine(2, spec=OTHER))
        swapped = await bench.swap(HandEngine(3, spec=OTHER), force=True)
        assert swapped.changes == ("observation: anything, now 1 keys",)
        assert isinstance(bench.changes[-1].closing, PolicyChanged)
        await bench.swap(HandEngine(4, spec=OTHER))
        assert bench.changes[-1].closing is None

    converse(Bench(), talk)


def test_sessions_do_not_stay_where_the_spec_is_another_one() -> None:
    async def talk(bench: Bench) -> None:
        ask(bench.engine, 1)
        await bench.swap(HandEngine(2, spec=OTHER), force=True, when="next-session")
        await until(lambda: bench.first[0].closed)

    converse(Bench(), talk)


def test_a_swap_during_a_swap_is_refused_with_what_is_on_its_way() -> None:
    async def talk(bench: Bench) -> None:
        second = loading()
        swapping = bench.swap(second)
        await bench.is_coming(second)
        with pytest.raises(ConfigError, match=r"on its way already: checkpoint 2, warming up, since 0 s"):
            await bench.swap(HandEngine(3))
        with pytest.raises(ConfigError, match="on its way already"):
            await bench.engine.back()
        assert second.may_load is not None
        second.may_load.set()
        await swapping
        assert ask(bench.engine) == [2]

    converse(Bench(), talk)


def test_a_swap_while_the_first_one_loads_or_after_the_end_is_refused() -> None:
    async def run() -> None:
        bench = Bench()
        with pytest.raises(ConfigError, match=r"the first policy is not there yet \(loading\): wait"):
            await bench.swap(HandEngine(2))
        await bench.engine.start(lambda _: None, NOBODY)
        await bench.engine.close(1)
        with pytest.raises(ConfigError, match="the server is stopping"):
            await bench.swap(HandEngine(2))

    asyncio.run(run())


def test_where_the_first_one_cannot_be_loaded_another_one_can_take_its_place() -> None:
    async def run() -> None:
        bench = Bench(HandEngine(1, error=ConfigError("no weights")))
        with pytest.raises(ConfigError, match="no weights"):
            await bench.engine.start(lambda _: None, NOBODY)
        await bench.swap(HandEngine(2, spec=OTHER))
        assert bench.changes[-1].closing is None
        assert ask(bench.engine) == [2]
        await bench.engine.close(1)

    asyncio.run(run())


def test_a_policy_is_let_go_of_without_a_collector() -> None:
    class Heavy:
        pass

    async def run() -> None:
        gc.collect()
        gc.disable()
        engine = SwappingEngine(policy_of(Heavy()), 1000.0, 100)
        await engine.start(lambda _: None, NOBODY)
        for _ in range(3):
            await engine.swap(policy_of(Heavy()))
        await engine.retired()
        await until(lambda: sum(kept() is not None for kept in heavy) == 1)  # the last thread lets go as it ends
        await engine.close(1)

    def policy_of(kept: Heavy) -> NextPolicy:
        heavy.append(weakref.ref(kept))
        loads = [lambda _, kept=kept: FunctionPolicy(lambda observation: (kept, np.zeros(1))[1])]
        del kept
        return NextPolicy("heavy", lambda: LocalEngine(loads.pop(), lambda _: Batcher(4, 100), 1000.0))

    heavy: list[Any] = []
    try:
        asyncio.run(run())
    finally:
        gc.enable()


def test_back_returns_to_the_one_before_which_is_loaded_again() -> None:
    async def talk(bench: Bench) -> None:
        with pytest.raises(ConfigError, match="this one is the first"):
            await bench.engine.back()
        await bench.swap(HandEngine(2), HandEngine(22))
        assert (await bench.engine.back()).title == "checkpoint 1"
        assert ask(bench.engine) == [11]
        await bench.engine.back()
        assert ask(bench.engine) == [22]
        assert bench.engine.version == 4

    converse(Bench(HandEngine(1), HandEngine(11)), talk)


def test_an_object_of_the_programs_cannot_come_back() -> None:
    async def talk(bench: Bench) -> None:
        await bench.swap(HandEngine(2))
        with pytest.raises(ConfigError, match=r"checkpoint 1 was an object .* hand over another one"):
            await bench.engine.back()

    converse(Bench(may_come_back=False), talk)


def test_unloaded_first_requests_wait_and_are_answered_by_the_next_one() -> None:
    async def talk(bench: Bench) -> None:
        first, second = bench.first[0], loading()
        first.is_held = True
        early = ask(bench.engine, 1)
        swapping = bench.swap(second, unload_first=True)
        await until(lambda: bench.engine.stage.startswith("exchanging the policy: checkpoint 2, unloading"))
        held = [ask(bench.engine, session) for session in (1, 2, 1)]
        gone = ask(bench.engine, 3)
        bench.engine.forget(3)
        assert bench.engine.load == 4
        first.answer()
        assert early == [1]
        await bench.is_coming(second)
        assert first.closed
        assert held == [[], [], []]
        assert second.may_load is not None
        second.may_load.set()
        await swapping
        assert held == [[2], [2], [2]]
        assert gone == []
        assert bench.engine.stage == ""

    converse(Bench(), talk)


def test_requests_that_wait_too_long_for_the_next_one_are_told() -> None:
    async def talk(bench: Bench) -> None:
        second = loading()
        swapping = bench.swap(second, unload_first=True)
        await bench.is_coming(second)
        told = ask(bench.engine)
        await until(lambda: told)
        assert isinstance(told[0], DeadlineExceeded)
        assert second.may_load is not None
        second.may_load.set()
        await swapping

    converse(Bench(request_timeout_s=0.01), talk)


def test_unloaded_first_for_one_that_fails_the_one_before_is_loaded_again() -> None:
    async def talk(bench: Bench) -> None:
        with pytest.raises(ConfigError, match="no weights"):
            await bench.swap(HandEngine(2, error=ConfigError("no weights")), unload_first=True)
        assert ask(bench.engine) == [11]
        assert bench.engine.title == "checkpoint 1"

    converse(Bench(HandEngine(1), HandEngine(11)), talk)


def test_where_that_fails_too_requests_are_refused_until_another_one_takes_over() -> None:
    async def talk(bench: Bench) -> None:
        second = loading(error=ConfigError("no weights"))
        swapping = bench.swap(second, unload_first=True)
        await bench.is_coming(second)
        held = ask(bench.engine)
        assert second.may_load is not None
        second.may_load.set()
        with pytest.raises(ConfigError, match="no weights"):
            await swapping
        assert isinstance(held[0], NotReady)
        assert "no weights; the one before cannot be loaded again: no disk; swap one in" in bench.engine.stage
        with pytest.raises(NotReady, match="there is no policy"):
            ask(bench.engine)
        await bench.swap(HandEngine(3))
        assert ask(bench.engine) == [3]
        assert bench.engine.stage == ""

    converse(Bench(HandEngine(1), HandEngine(11, error=ConfigError("no disk"))), talk)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of now, next-session, got 'later'"):
        Swap(when="later")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="unload_first: expected when=now"):
        Swap(when="next-session", unload_first=True)
    with pytest.raises(ConfigError, match="timeout_s: expected more than 0 seconds, got 0"):
        Swap(timeout_s=0)


def test_a_server_that_ends_while_one_loads_closes_all(caplog: pytest.LogCaptureFixture) -> None:
    bench, second = Bench(), HandEngine(2)

    async def talk(bench: Bench) -> None:
        second.may_load = asyncio.Event()
        swapping = bench.swap(second)
        await bench.is_coming(second)
        await bench.engine.close(1)
        with pytest.raises(ConfigError, match="checkpoint 2 does not take over: the server is stopping"):
            await swapping
        assert second.closed

    converse(bench, talk)
    assert "checkpoint 2 does not take over: the server is stopping" in caplog.text


def test_whoever_gives_up_a_swap_keeps_the_policy_before() -> None:
    async def talk(bench: Bench) -> None:
        second = loading()
        swapping = bench.swap(second)
        await bench.is_coming(second)
        swapping.cancel()
        await asyncio.wait([swapping])
        assert swapping.cancelled()
        assert second.closed
        assert ask(bench.engine) == [1]
        assert bench.engine.swapping == ""

    converse(Bench(), talk)


@pytest.mark.parametrize("is_isolated", [False, pytest.param(True, marks=pytest.mark.skipif("os.name != 'posix'"))])
def test_a_real_policy_is_exchanged_and_what_the_one_before_remembered_is_gone(is_isolated: bool) -> None:
    async def run() -> None:
        policy = NextPolicy("obedient", lambda: local(is_isolated))
        engine = SwappingEngine(policy, 1000.0, 100)
        await engine.start(lambda _: None, NOBODY)
        assert [await count(engine), await count(engine)] == [1, 2]
        await engine.swap(policy)
        assert await count(engine) == 1
        await engine.swap(policy, Swap(unload_first=True))
        assert [await count(engine), await count(engine)] == [1, 2]
        await engine.swap(policy, Swap(when="next-session"))
        assert [await count(engine), await count(engine, 2)] == [3, 1]
        await engine.close(5)

    asyncio.run(run())


def local(is_isolated: bool) -> LocalEngine:
    return LocalEngine(recipe_of(), lambda _: Batcher(4, 100), 1000.0, is_isolated=is_isolated)


async def count(engine: SwappingEngine, session: int = 1) -> float:
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    engine.submit(task(session, 1.0, "count"), asyncio.get_running_loop().time(), done.set_result)
    return value(await asyncio.wait_for(done, PATIENCE_S))
