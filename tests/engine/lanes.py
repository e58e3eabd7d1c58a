"""A lane over a carrier that goes no further than a thread: what runners promise, without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.effects import Answered, Outcome
from policyserve.core.policy import ActionChunk
from policyserve.core.recipe import Recipe
from policyserve.core.spec import PolicySpec
from policyserve.engine.isolated.codec import Packed
from policyserve.engine.runner import OnStage, ThreadRunner
from policyserve.ray.groups import Answers, Described, Parts, joined, read_group, write_answers
from policyserve.ray.lane import Edge, Lane


class ThreadCarrier:
    """Has a policy's thread answer groups, as a replica would: bytes go there, and bytes come back."""

    def __init__(self, runner: ThreadRunner) -> None:
        self.runner = runner
        self.described: Described | None = None
        self.broken = ""

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        assert self.described is not None
        outcomes: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._infer(*joined(group), outcomes)
        told = await outcomes
        broken, self.broken = self.broken, ""
        answers = Answers(told, self.described.digest, self.described.version, broken)
        return write_answers(answers, time.monotonic())

    def _infer(self, message: bytes, arrays: Array, outcomes: asyncio.Future[Sequence[Outcome]]) -> None:
        def tell(told: Sequence[Outcome]) -> None:
            if not outcomes.done():
                outcomes.set_result(told)

        self.runner.infer(read_group(message, np.array(arrays)).tasks, tell)


class LaneRunner(Lane):
    """A Runner whose policy is at the other end of a lane."""

    def __init__(self, recipe: Recipe) -> None:
        self.sources: Sequence[str] = ()
        self._thread = ThreadCarrier(ThreadRunner(recipe))
        self._told = Edge("edge ", "", call_timeout_s=1_000.0)
        super().__init__(self._thread, self._told)

    async def start(self, on_stage: OnStage) -> PolicySpec:
        self._thread.runner.on_broken = self._note_reason
        spec = await self._thread.runner.start(on_stage)
        self._thread.described = Described(spec, "1")
        self._told.digest = self._thread.described.digest
        return spec

    async def close(self, timeout_s: float) -> None:
        await self._thread.runner.close(timeout_s)
        self.end()

    def abandon(self) -> asyncio.Future[None]:
        self.end()
        return self._thread.runner.abandon()

    def _note_reason(self, reason: str) -> None:
        self._thread.broken = reason


class HandCarrier:
    """Keeps each call until the test ends it, as `echo` does."""

    def __init__(self, described: Described) -> None:
        self.described = described
        self.calls: list[tuple[bytes, Array]] = []
        self.ends: list[asyncio.Future[Parts]] = []

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        self.calls.append(joined(group))
        self.ends.append(asyncio.get_running_loop().create_future())
        return await self.ends[-1]

    def echo(self, call: int, **changes: Any) -> None:
        self.ends[call].set_result(echoed(self.calls[call], self.described, **changes))


def echoed(group: Parts, described: Described, **changes: Any) -> Parts:
    """Answers with the observation's x, and states that count the session's requests."""
    tasks, now = read_group(*group).tasks, time.monotonic()
    outcomes = [Answered(ActionChunk(one.observation["x"], (one.state or 0) + 1), now, now) for one in tasks]
    return write_answers(replace(Answers(outcomes, described.digest, described.version), **changes), now)
