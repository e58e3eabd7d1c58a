"""Ray is asked in threads; and how a cluster is, seldom while nothing changes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from policyserve.core.errors import ConfigError
from policyserve.ray.asking import SELDOM_S, Watch, in_thread
from policyserve.ray.cluster import Deployed
from tests.engine.running import PATIENCE_S, until

ONE = Deployed("arm", "1", "RUNNING", 1, 1)
TWO = Deployed("arm", "1", "RUNNING", 2, 2)


class Bench:
    """A watch over a cluster whose answer the test sets. told: what the engine was told."""

    def __init__(self) -> None:
        self.answer: list[Deployed] | Exception = [ONE]
        self.told: list[Sequence[Deployed]] = []
        self.waits = self.long_pauses = False
        self.failures = 0
        self.watch = Watch(self._ask, soon_s=0.001)

    def _ask(self) -> list[Deployed]:
        if isinstance(self.answer, Exception):
            self.failures += 1
            raise self.answer
        return self.answer

    def look(self, found: Sequence[Deployed]) -> bool:
        self.told.append(found)
        if self.long_pauses:
            self.watch.pause_s = SELDOM_S
        return self.waits

    async def told_of(self, count: int) -> None:
        await until(lambda: len(self.told) >= count)


def run(talk: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        bench = Bench()
        bench.watch.add(bench.look)
        await asyncio.wait_for(talk(bench), PATIENCE_S)
        await bench.watch.remove(bench.look)
        assert len(asyncio.all_tasks()) <= 2  # this one and its wait

    asyncio.run(bounded())


def test_each_answer_like_the_last_doubles_the_pause_and_a_change_ends_that() -> None:
    async def talk(bench: Bench) -> None:
        await bench.told_of(4)
        await until(lambda: bench.watch.pause_s > 0.004)
        bench.answer = [TWO]
        bench.watch.soon()
        await until(lambda: bench.told[-1] == [TWO])
        await until(lambda: bench.watch.pause_s <= 0.002)

    run(talk)


def test_whoever_has_lost_a_call_need_not_wait_for_the_end_of_a_pause() -> None:
    async def talk(bench: Bench) -> None:
        bench.long_pauses = True
        for count in range(2, 12):
            await bench.told_of(count - 1)
            bench.watch.soon()
            await bench.told_of(count)  # by its pauses alone that would take longer than anybody waits here
        assert bench.watch.pause_s == SELDOM_S

    run(talk)


def test_an_engine_without_replicas_is_told_soon_however_often_nothing_changes() -> None:
    async def talk(bench: Bench) -> None:
        bench.waits = True
        await bench.told_of(30)  # by its pauses alone that would take minutes

    run(talk)


def test_all_engines_are_told_of_one_answer_and_none_after_it_has_left() -> None:
    async def talk(bench: Bench) -> None:
        other = Bench()
        bench.watch.add(other.look)
        await other.told_of(1)
        await until(lambda: other.told[-1] is bench.told[-1])
        await bench.watch.remove(other.look)
        before, others = len(bench.told), len(other.told)
        bench.watch.soon()
        await bench.told_of(before + 2)
        assert len(other.told) == others

    run(talk)


def test_a_cluster_that_does_not_answer_is_asked_again() -> None:
    async def talk(bench: Bench) -> None:
        await bench.told_of(1)
        bench.answer = ConnectionError("the controller is away")
        bench.watch.soon()
        await until(lambda: bench.failures > 2)
        bench.answer = [TWO]
        await until(lambda: bench.told[-1] == [TWO])

    run(talk)


def test_a_cluster_that_is_away_is_told_of_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(bench: Bench) -> None:
        await bench.told_of(1)
        assert not bench.watch.is_away
        bench.answer = ConnectionError("the controller is away")
        await until(lambda: bench.failures > 2)
        assert bench.watch.is_away
        bench.answer = [TWO]
        await until(lambda: bench.told[-1] == [TWO])
        assert not bench.watch.is_away

    run(talk)
    first, second = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert first.startswith("the cluster does not answer (ConnectionError: the controller is away); ")
    assert "RAY_gcs_rpc_server_reconnect_timeout_s" in first
    assert second == "the cluster answers again"


def test_a_cluster_that_is_silent_is_away_before_ray_gives_it_up(caplog: pytest.LogCaptureFixture) -> None:
    def look(_: Sequence[Deployed]) -> bool:
        return False

    async def talk() -> None:
        goes_on = threading.Event()
        watch = Watch(lambda: [] if goes_on.wait(PATIENCE_S) else [ONE], soon_s=0.001, away_s=0.001)
        watch.add(look)
        await until(lambda: watch.is_away)
        goes_on.set()
        await until(lambda: not watch.is_away)
        await watch.remove(look)

    asyncio.run(talk())
    assert "the cluster does not answer for 0.001 s; " in caplog.text


def test_what_waits_for_ray_waits_in_a_thread_and_its_errors_come_back() -> None:
    def refuse() -> None:
        raise ConfigError("no cluster")

    async def ask() -> None:
        assert await in_thread(threading.get_ident) != threading.get_ident()
        with pytest.raises(ConfigError, match="no cluster"):
            await in_thread(refuse)

    asyncio.run(ask())
