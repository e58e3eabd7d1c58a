"""One version of a policy after the other: who answers whom, and when one before is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from policyserve.engine.versions import Versions
from tests.engine.exchanged import HandEngine, ask
from tests.engine.running import PATIENCE_S, until


def with_versions(talk: Callable[[Versions[HandEngine], list[HandEngine]], Awaitable[None]]) -> None:
    async def run() -> None:
        engines = [HandEngine(number) for number in (1, 2, 3)]
        versions = Versions(engines[0])
        await asyncio.wait_for(talk(versions, engines), PATIENCE_S)
        await versions.close(1)
        assert versions.current.closed
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_the_next_one_takes_all_requests_and_the_one_before_is_closed_once_it_has_answered() -> None:
    async def talk(versions: Versions[HandEngine], engines: list[HandEngine]) -> None:
        first, second, _ = engines
        first.is_held = True
        early = ask(versions)
        versions.take_over(second)
        assert ask(versions) == [2]
        assert early == []
        assert versions.load == 1
        assert versions.is_working
        first.answer()
        assert early == [1]
        await versions.retired()
        assert first.closed == 1
        assert versions.all == [second]

    with_versions(talk)


def test_sessions_that_stay_end_on_the_one_before_and_others_begin_on_the_next() -> None:
    async def talk(versions: Versions[HandEngine], engines: list[HandEngine]) -> None:
        first, second, _ = engines
        assert ask(versions, 1) == ask(versions, "1/1") == [1]
        versions.take_over(second, sessions_stay=True)
        assert [ask(versions, session) for session in (1, "1/1", 2)] == [[1], [1], [2]]
        assert versions.staying == 2
        versions.forget(2)
        versions.forget(1)
        assert ask(versions, 1) == [2]
        assert not first.closed
        versions.forget("1/1")
        await until(lambda: first.closed)
        assert versions.staying == 0

    with_versions(talk)


def test_where_nobody_stays_the_one_before_is_closed_at_once() -> None:
    async def talk(versions: Versions[HandEngine], engines: list[HandEngine]) -> None:
        versions.take_over(engines[1], sessions_stay=True)
        await until(lambda: engines[0].closed)

    with_versions(talk)


def test_a_third_one_takes_over_those_that_stayed_too() -> None:
    async def talk(versions: Versions[HandEngine], engines: list[HandEngine]) -> None:
        first, second, third = engines
        ask(versions, 1)
        versions.take_over(second, sessions_stay=True)
        ask(versions, 2)
        versions.take_over(third)
        assert [ask(versions, session) for session in (1, 2, 3)] == [[3], [3], [3]]
        await until(lambda: first.closed and second.closed)

    with_versions(talk)


def test_a_session_is_forgotten_by_all(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(versions: Versions[HandEngine], engines: list[HandEngine]) -> None:
        first, second, _ = engines
        first.is_held = True
        ask(versions, 7)
        versions.take_over(second)
        versions.forget(7)
        assert first.forgotten == second.forgotten == [7]
        first.answer()

    with_versions(talk)


def test_one_that_cannot_be_closed_is_told_and_let_go(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(HandEngine):
        async def close(self, timeout_s: float) -> None:
            raise RuntimeError("the device is lost")

    async def run() -> None:
        versions: Versions[HandEngine] = Versions(Stuck())
        versions.take_over(HandEngine(2))
        await versions.retired()
        assert len(versions.all) == 1

    asyncio.run(run())
    assert "a policy that was exchanged did not close" in caplog.text


def test_all_are_closed_at_the_end_also_one_that_is_coming() -> None:
    async def run() -> None:
        first, second, third = (HandEngine(number) for number in (1, 2, 3))
        first.is_held = True
        versions = Versions(first)
        ask(versions)
        versions.take_over(second)
        versions.coming = third
        await versions.close(1)
        assert [one.closed for one in (first, second, third)] == [1, 1, 1]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
