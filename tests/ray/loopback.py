"""Replicas that are listeners of this process, whose answers the test ends by hand, and edges' ways to them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.engine.isolated.codec import Packed
from policyserve.ray.groups import Described, OnAnswer, Parts
from policyserve.ray.link import Link, Place
from policyserve.ray.listener import Listener
from policyserve.ray.tcp import Links
from tests.engine.lanes import echoed
from tests.engine.running import PATIENCE_S

HOST = "127.0.0.1"
_NAMES = itertools.count()


class HandReplica:
    """Keeps each group until the test answers it; a group of `echo` is answered at once."""

    def __init__(self, digest: str = "digest") -> None:
        self.name = f"replica {next(_NAMES)}"
        self.groups: list[tuple[bytes, Array]] = []
        self.ends: list[asyncio.Future[Parts]] = []
        self.listener = Listener(self._answer, digest, self.name.encode())

    async def open(self) -> Place:
        return Place(self.name, HOST, await self.listener.open(HOST), self.name.encode())

    def _answer(self, message: bytes, arrays: Array, on_answer: OnAnswer) -> None:
        def end(answer: asyncio.Future[Parts]) -> None:
            error = answer.exception()
            on_answer(error if isinstance(error, Exception) else answer.result())

        self.groups.append((message, arrays))
        self.ends.append(asyncio.get_running_loop().create_future())
        self.ends[-1].add_done_callback(end)
        if message == b"echo":
            self.ends[-1].set_result((message, arrays))


class EchoReplica(HandReplica):
    """Answers each group at once."""

    def __init__(self, described: Described) -> None:
        super().__init__(described.digest)
        self._described = described

    def _answer(self, message: bytes, arrays: Array, on_answer: OnAnswer) -> None:
        super()._answer(message, arrays, on_answer)
        self.ends[-1].set_result(echoed((message, arrays), self._described))


class Bench:
    """Replicas that listen, and links to them which have ended at the end."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self._ends: list[Callable[[], Any]] = []

    async def replica(self, digest: str = "digest") -> HandReplica:
        made = HandReplica(digest)
        await self.open(made)
        return made

    async def open(self, replica: HandReplica) -> None:
        self.places.append(await replica.open())
        self._ends.append(replica.listener.close)

    async def link(self, place: Place | None = None, on_change: Callable[[Link], None] = lambda _: None) -> Link:
        made = Link(place or self.places[-1], on_change)
        self._ends.append(made.abort)
        await made.open()
        return made

    async def links(self, patience_s: float = PATIENCE_S) -> Links:
        async def find() -> list[Place]:
            return list(self.places)

        made = Links(find)
        self._ends.append(made.close)
        await made.start(patience_s)
        return made

    async def end(self) -> None:
        for end in reversed(self._ends):
            result = end()
            if asyncio.iscoroutine(result):
                await result
        await asyncio.sleep(0)  # connections that were cut are noticed


def run(talk: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        bench = Bench()
        try:
            await asyncio.wait_for(talk(bench), PATIENCE_S)
        finally:
            await bench.end()

    asyncio.run(bounded())


def group(message: bytes, size: int) -> Packed:
    """What an edge sends: the message, and so many bytes beside it."""
    packed = Packed(numbers(size), inline=-1)
    packed.data = message
    return packed


def numbers(size: int, value: int = 7) -> Array:
    """(size,) uint8."""
    return np.full(size, value, np.uint8)
