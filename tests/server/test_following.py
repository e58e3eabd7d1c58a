"""A training run that is followed: which checkpoints are taken, and what is told of a run that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.recipe import Newest, Recipe
from policyserve.server.following import Follower
from tests.engine.running import PATIENCE_S, until


class Run:
    """A run whose newest checkpoint the test sets, and what was taken of it. first: the one that is served already."""

    def __init__(self, first: Newest | None) -> None:
        self.newest: Newest | Exception | None = first
        self.looks = 0
        self.taken: list[int] = []
        self.is_refused = False
        self.may_take = True
        self.follower = Follower(self.look, self.take, lambda: self.may_take, first, 0.002, "arm")

    def look(self) -> Newest | None:
        self.looks += 1
        if isinstance(self.newest, Exception):
            raise self.newest
        return self.newest

    async def take(self, found: Newest) -> None:
        self.taken.append(found.step)
        if self.is_refused:
            raise ConfigError("another spec")

    async def looks_on(self) -> None:
        seen = self.looks
        await until(lambda: self.looks > seen + 4)


def checkpoint(step: int, stamp: int = 0) -> Newest:
    return Newest(step, Recipe("somewhere:load", {"step": step}), stamp)


def follow(talk: Callable[[Run], Awaitable[None]], *, is_begun: bool = True) -> None:
    async def run() -> None:
        run = Run(checkpoint(1) if is_begun else None)
        run.follower.start()
        await asyncio.wait_for(talk(run), PATIENCE_S)
        await run.follower.stop()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_newer_checkpoint_is_taken_once() -> None:
    async def talk(run: Run) -> None:
        await run.looks_on()
        assert run.taken == []
        run.newest = checkpoint(2)
        await until(lambda: run.follower.step == 2)
        await run.looks_on()
        assert run.taken == [2]

    follow(talk)


def test_one_whose_files_still_change_is_not_taken() -> None:
    async def talk(run: Run) -> None:
        def grow() -> Newest:
            run.looks += 1
            return checkpoint(2, run.looks)

        run.follower._look = grow  # pyright: ignore[reportPrivateUsage]
        await run.looks_on()
        assert run.taken == []

    follow(talk)


def test_one_that_was_written_anew_is_taken_again() -> None:
    async def talk(run: Run) -> None:
        run.newest = checkpoint(1, stamp=7)
        await until(lambda: run.taken == [1])

    follow(talk)


def test_one_that_is_refused_is_not_tried_again_but_the_next_one_is() -> None:
    async def talk(run: Run) -> None:
        run.is_refused = True
        run.newest = checkpoint(2)
        await until(lambda: run.taken == [2])
        await run.looks_on()
        assert (run.taken, run.follower.step) == ([2], 1)
        run.is_refused = False
        run.newest = checkpoint(3)
        await until(lambda: run.follower.step == 3)

    follow(talk)


def test_it_waits_where_no_policy_can_be_exchanged_now() -> None:
    async def talk(run: Run) -> None:
        run.may_take = False
        run.newest = checkpoint(2)
        await run.looks_on()
        assert run.taken == []
        run.newest = checkpoint(3)
        run.may_take = True
        await until(lambda: run.taken[-1:] == [3])

    follow(talk)


def test_a_run_that_is_deleted_is_told_once_and_taken_up_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(run: Run) -> None:
        run.newest = ConfigError("runs/arm: the run's directory of checkpoints is gone")
        await until(lambda: "step 1 goes on, since newer ones cannot be looked for: runs/arm" in caplog.text)
        await run.looks_on()
        assert run.taken == []
        run.newest = checkpoint(2)
        await until(lambda: run.taken == [2])
        run.newest = RuntimeError("another package's adapter")
        await until(lambda: "another package's adapter" in caplog.text)
        run.newest = checkpoint(3)
        await until(lambda: run.taken == [2, 3])

    follow(talk)
    assert caplog.text.count("goes on") == 2


def test_a_run_whose_checkpoints_are_all_gone_keeps_the_last(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(run: Run) -> None:
        run.newest = None
        await until(lambda: "the run has no complete checkpoint any more" in caplog.text)
        assert run.taken == []

    follow(talk)


def test_the_first_checkpoint_of_a_run_that_had_none_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(run: Run) -> None:
        await run.looks_on()
        assert (run.taken, run.follower.step) == ([], None)
        run.newest = ConfigError("runs/arm is gone")
        await until(lambda: "arm: the first one is waited for, since newer ones cannot be looked for" in caplog.text)
        run.newest = checkpoint(1)
        await until(lambda: run.follower.step == 1)
        assert run.taken == [1]

    caplog.set_level("INFO")
    follow(talk, is_begun=False)
    assert caplog.text.count("goes on") == 0
    assert "arm: the first checkpoint is waited for" in caplog.text
