"""When the event loop polls, and when it may sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from policyserve import Client
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.server.busy_poll import BusyPoll
from tests.server.live import serving

LONG_S = 1e4  # nothing here lasts so long


class Looks:
    """How often the loop has looked for news; from the look after the `most`-th on a policy is at work."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self._most = most

    def __call__(self) -> bool:
        self.count += 1
        return self.count > self._most


def used_to(wait_s: float, looks: Looks) -> BusyPoll:
    """Four times somebody came back after so long, in a past in which nothing polls any more. Call it in a loop."""
    awake = BusyPoll(LONG_S, looks)
    for _ in range(4):
        awake.on_answer(-1e9)
        awake.on_bytes(-1e9 + wait_s)
    return awake


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_it_looks_again_and_again_while_clients_come_back_at_once_and_no_policy_is_at_work() -> None:
    async def run() -> None:
        looks = Looks(4)
        used_to(0.1, looks).on_answer(time.monotonic())
        await turns(10)
        assert looks.count == 5

    asyncio.run(run())


def test_it_ends_when_the_time_is_over() -> None:
    async def run() -> None:
        looks = Looks(4)
        used_to(0.1, looks).on_answer(time.monotonic() - 2 * LONG_S)
        await turns(10)
        assert looks.count == 0

    asyncio.run(run())


def test_whatever_comes_is_waited_behind_anew() -> None:
    async def run() -> None:
        looks = Looks(10)
        awake = used_to(0.1, looks)
        awake.on_answer(time.monotonic())
        awake.on_bytes(time.monotonic() - 2 * LONG_S)
        awake.on_bytes(time.monotonic())  # the rest of a message
        await turns(3)
        assert looks.count >= 3
        awake.on_bytes(time.monotonic() - 2 * LONG_S)
        count = looks.count
        await turns(3)
        assert looks.count == count

    asyncio.run(run())


def test_clients_that_take_their_time_are_not_waited_for() -> None:
    async def run() -> None:
        looks = Looks(4)
        used_to(2 * LONG_S, looks).on_answer(time.monotonic())
        await turns(10)
        assert looks.count == 0

    asyncio.run(run())


class _Reflex:
    spec = PolicySpec("reflex", {"obs": ArraySpec((1,))}, ArraySpec((1,)), inline=True)

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [ActionChunk(np.zeros(1, np.float32)) for _ in batch]

    def close(self) -> None: ...


class _Told(BusyPoll):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(0.0, lambda: False)
        self.said: list[str] = []

    def on_bytes(self, now: float) -> None:
        self.said.append("heard")

    def on_answer(self, now: float) -> None:
        self.said.append("answered")


def test_a_server_tells_of_every_message_and_answer() -> None:
    told = _Told()
    with serving(_Reflex(), isolate="thread") as live:
        live.server.busy_poll = told
        with Client(live.url(), dialect="vibe_rl") as client:
            for _ in range(3):
                client.infer({"obs": np.zeros(1, np.float32)})
    assert [said for said in told.said if said == "answered"] == ["answered"] * 3
    assert told.said[:2] == ["heard", "answered"]
