"""Runners of every kind with the obedient policy, and what tests ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.observer import Observers
from policyserve.core.recipe import Recipe
from policyserve.engine.batcher import Batcher
from policyserve.engine.isolated.runner import ProcessRunner
from policyserve.engine.local import LocalEngine
from policyserve.engine.runner import Runner, Task, ThreadRunner
from tests.engine.lanes import LaneRunner

KINDS: dict[str, Callable[[Recipe], Runner]] = {"thread": ThreadRunner, "process": ProcessRunner, "lane": LaneRunner}
PATIENCE_S = 30.0  # generous: only a bug reaches it
NOBODY = Observers(lambda _observer, error: pytest.fail(str(error)))  # listens
HERE = "tests.engine.obedient"


def recipe(function: str = "Obedient", **arguments: Any) -> Recipe:
    return Recipe(f"{HERE}:{function}", arguments)


async def started(
    load: Any, *, max_batch: int = 4, request_timeout_s: float = 1_000.0, stages: Any = None, **placement: Any
) -> LocalEngine:
    """A LocalEngine that has loaded its policy."""
    engine = LocalEngine(load, lambda _: Batcher(max_batch, 10_000), request_timeout_s, **placement)
    await engine.start(stages or (lambda _: None), NOBODY)
    return engine


def task(session: Any, x: float = 0.0, do: str = "echo", **more: Any) -> Task:
    return Task(session, {"x": np.array([x], np.float32), "do": do, **more})


def infer(runner: Any, *batch: Task) -> asyncio.Future[Sequence[Outcome]]:
    done: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
    runner.infer(batch, done.set_result)
    return done


async def ask(runner: Any, x: float = 0.0, do: str = "echo", session: Any = 1, **more: Any) -> Outcome:
    (outcome,) = await asyncio.wait_for(infer(runner, task(session, x, do, **more)), PATIENCE_S)
    return outcome


def value(outcome: Outcome) -> float:
    assert isinstance(outcome, Answered), outcome
    return float(outcome.chunk.actions[0])


def with_runner(runner: Runner, talk: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        await runner.start(lambda _: None)
        try:
            return await asyncio.wait_for(talk(runner), PATIENCE_S)
        finally:
            await runner.close(5)

    return asyncio.run(run())


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for what another process does."""

    async def wait() -> None:
        while not is_so():  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.002)

    await asyncio.wait_for(wait(), PATIENCE_S)


async def mark(directory: Path, name: str) -> None:
    """Wait until the policy has left this file."""
    await until((directory / name).exists)
