"""Requests that wait while there is no policy."""

from __future__ import annotations

import asyncio

import pytest

from policyserve.core.errors import DeadlineExceeded, Overloaded
from policyserve.engine.holding import HeldRequests
from tests.engine.exchanged import ask
from tests.engine.running import NOBODY, until


def test_they_are_taken_in_the_order_of_their_coming() -> None:
    async def run() -> None:
        held = HeldRequests(60.0, 10, NOBODY)
        for session in (2, 1, 2):
            ask(held, session)
        assert held.load == 3
        assert [task.session for task, _, _ in held.take()] == [2, 1, 2]
        assert held.load == 0
        await asyncio.wait_for(held.drained(), 5)

    asyncio.run(run())


def test_one_that_waits_too_long_is_told_so() -> None:
    async def run() -> None:
        held = HeldRequests(0.01, 10, NOBODY)
        told = ask(held)
        await until(lambda: told)
        assert isinstance(told[0], DeadlineExceeded)
        assert "the policy is being replaced" in str(told[0])
        assert held.take() == []

    asyncio.run(run())


def test_they_are_no_more_than_may_wait() -> None:
    async def run() -> None:
        held = HeldRequests(60.0, 2, NOBODY)
        ask(held, 1)
        ask(held, 2)
        with pytest.raises(Overloaded, match="this server keeps 2"):
            ask(held, 3)

    asyncio.run(run())


def test_those_of_a_session_that_ends_are_dropped() -> None:
    async def run() -> None:
        held = HeldRequests(60.0, 10, NOBODY)
        ask(held, 1)
        ask(held, 2)
        held.forget(1)
        assert [task.session for task, _, _ in held.take()] == [2]

    asyncio.run(run())
