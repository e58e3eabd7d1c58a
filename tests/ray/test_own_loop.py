"""An event loop in a thread of its own, asked by another one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from policyserve.ray.own_loop import OwnLoop


@pytest.fixture
def own() -> Iterator[OwnLoop]:
    made = OwnLoop("replica")
    yield made
    made.close()


def test_coroutines_run_in_its_thread_and_their_ends_come_back(own: OwnLoop) -> None:
    async def name() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise ValueError("there")

    async def talk() -> None:
        assert await own.run(name()) == "replica"
        with pytest.raises(ValueError, match="there"):
            await own.run(fail())

    asyncio.run(talk())


def test_whoever_is_cancelled_cancels_what_it_waits_for(own: OwnLoop) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def talk() -> None:
        asked = asyncio.create_task(own.run(wait()))
        await asyncio.to_thread(begun.wait, 30)
        asked.cancel()
        await asyncio.wait([asked])

    asyncio.run(talk())
    assert ended.wait(30)
