"""Engines that are told what to do, for tests of what exchanges them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from policyserve.core.effects import Answered, Outcome
from policyserve.core.observer import Observers
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage, Task
from policyserve.engine.engine import OnOutcome
from policyserve.engine.swaps import NextPolicy


class HandEngine:
    """Answers with its number, at once or, if it is held, when the test says so."""

    stage = ""

    def __init__(self, number: int = 1, spec: PolicySpec | None = None, error: Exception | None = None) -> None:
        self.number = number
        self.spec = spec or PolicySpec(f"policy {number}", None, None)
        self.error = error  # of loading
        self.may_load: asyncio.Event | None = None
        self.on_stage: OnStage = lambda _: None
        self.is_held = False
        self.waiting: list[tuple[Task, OnOutcome]] = []
        self.forgotten: list[Hashable] = []
        self.closed = 0

    @property
    def is_working(self) -> bool:
        return bool(self.waiting)

    @property
    def load(self) -> int:
        return len(self.waiting)

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        self.on_stage = on_stage
        on_stage("warming up")
        if self.may_load is not None:
            await self.may_load.wait()
        if self.error is not None:
            raise self.error
        return self.spec

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        assert not self.closed, "a closed engine is asked"
        self.waiting.append((task, on_outcome))
        if not self.is_held:
            self.answer()

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for _, on_outcome in waiting:
            on_outcome(Answered(ActionChunk(np.array(self.number)), 0.0, 0.0))

    def forget(self, session: Hashable) -> None:
        self.forgotten.append(session)

    async def drained(self) -> None:
        while self.waiting:  # noqa: ASYNC110 - the test says when
            await asyncio.sleep(0.001)

    async def close(self, timeout_s: float) -> None:
        self.closed += 1


def named(engine: HandEngine, *again: HandEngine, title: str = "", may_come_back: bool = True) -> NextPolicy:
    """A policy of this engine, and of those when it is loaded again."""
    engines = iter([engine, *again])
    return NextPolicy(title or f"checkpoint {engine.number}", lambda: next(engines), may_come_back)


def ask(engine: Any, session: Hashable = 1) -> list[Any]:
    """Where the number of who answered, or what is told instead, will stand."""
    told: list[Any] = []

    def note(outcome: Outcome) -> None:
        told.append(int(outcome.chunk.actions) if isinstance(outcome, Answered) else outcome)

    now: Callable[[], float] = asyncio.get_running_loop().time  # time.monotonic, on all platforms that are tested
    engine.submit(Task(session, {}), now(), note)
    return told
