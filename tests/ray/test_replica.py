"""A replica without Ray: groups in, answers out, in its own event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered
from policyserve.core.errors import ConfigError, PolicyFailed, PolicyLost
from policyserve.core.recipe import Recipe
from policyserve.engine.ready import PolicyPerSession
from policyserve.ray.carrying import read_state, write_state
from policyserve.ray.config import ReplicaSettings
from policyserve.ray.groups import Answers, Group, joined, read_answers, read_described, write_group
from policyserve.ray.replica import Replica
from tests.engine.obedient import SPEC, Obedient
from tests.engine.running import PATIENCE_S, mark, recipe, task, until, value


class CountsBySelf:
    """A policy of one session, which remembers by itself how often it was asked."""

    def __init__(self) -> None:
        self._calls = 0

    def infer(self, observation: Any) -> Any:
        self._calls += 1
        return {"actions": np.array([self._calls], np.float32)}


def with_replica(load: Any, talk: Callable[[Replica], Awaitable[Any]], **settings: Any) -> Any:
    async def run() -> Any:
        replica = Replica(load, "7", ReplicaSettings(**settings))
        try:
            await replica.start()
            return await asyncio.wait_for(talk(replica), PATIENCE_S)
        finally:
            await replica.close()

    return asyncio.run(run())


async def ask(replica: Replica, *tasks: Any, digest: str = "", edge: str = "edge ") -> Answers:
    described = read_described(await replica.describe())
    group = Group([one._replace(state=None) for one in tasks], digest or described.digest)
    message, arrays = joined(write_group(group, edge))
    arrays.flags.writeable = False  # as what comes through Ray
    return read_answers(*await replica.infer(message, arrays), now=0.0)


def test_groups_of_all_edges_share_batches_and_get_their_own_answers(tmp_path: Path) -> None:
    async def talk(replica: Replica) -> None:
        first = asyncio.create_task(ask(replica, task(1, 9.0, "wait")))
        await mark(tmp_path, "waiting")
        others = [asyncio.create_task(ask(replica, task(1, number), task(2, -number), edge=f"{number} "))
                  for number in range(3)]  # fmt: skip
        (tmp_path / "go").touch()
        assert [value(one) for one in (await first).outcomes] == [9.0]
        for number, other in enumerate(others):
            answers = await other
            assert [value(one) for one in answers.outcomes] == [number, -number]
            assert answers.version == "7"

    with_replica(recipe(marks=tmp_path), talk)


def test_it_tells_its_spec_and_answers_nobody_who_was_told_another() -> None:
    async def talk(replica: Replica) -> None:
        assert read_described(await replica.describe()).spec == SPEC
        assert (await ask(replica, task(1), digest="another")).outcomes == []

    with_replica(recipe(), talk)


def test_states_are_the_requests_own_and_it_keeps_none() -> None:
    async def talk(replica: Replica) -> None:
        digest = read_described(await replica.describe()).digest

        async def count(state: Any) -> Any:
            parts = joined(write_group(Group([task(1, do="count")._replace(state=write_state(state))], digest)))
            (outcome,) = read_answers(*await replica.infer(*parts), now=0.0).outcomes
            assert value(outcome) == (state or 0) + 1
            return read_state(outcome.chunk.state)  # type: ignore[union-attr]

        assert [await count(state) for state in (None, 1, 41, None, 1)] == [1, 2, 42, 1, 2]

    with_replica(recipe(), talk)


def test_a_policy_may_write_into_what_came_through_ray() -> None:
    async def talk(replica: Replica) -> None:
        for number in range(5):
            image = np.full((100, 100), number, np.uint8)
            answers = await ask(replica, task(1, do="keep", image=image))
            assert [value(one) for one in answers.outcomes] == [1.0]

    with_replica(recipe(), talk)


def test_one_bad_request_of_a_group_fails_alone() -> None:
    async def talk(replica: Replica) -> None:
        good, bad = (await ask(replica, task(1, 3.0), task(2, 0, "fail"))).outcomes
        assert value(good) == 3.0
        assert isinstance(bad, PolicyFailed)

    with_replica(recipe(), talk)


def test_a_group_that_cannot_be_read_is_told_and_none_is_counted_that_has_its_answer() -> None:
    async def talk(replica: Replica) -> None:
        with pytest.raises(ValueError, match="unpack"):
            await replica.infer(b"\x92\x01\x02", np.empty(0, np.uint8))
        asked = asyncio.create_task(ask(replica, task(1, 3.0)))
        await until(lambda: replica.load == 1)
        await asked
        assert replica.load == 0

    with_replica(recipe(), talk)


def test_a_process_whose_gpu_is_lost_says_that_it_is_not_healthy() -> None:
    async def talk(replica: Replica) -> None:
        await replica.check_health()
        await ask(replica, task(1, 6, "fail"))
        await until(lambda: vars(replica)["_broken"])
        with pytest.raises(RuntimeError, match="illegal memory access"):
            await replica.check_health()

    with_replica(recipe(), talk)


@pytest.mark.parametrize("kind", ["reset", "factory"])
def test_a_policy_that_remembers_by_itself_cannot_be_on_several_machines(kind: str) -> None:
    class Remembering(Obedient):
        def reset(self) -> None:
            """A policy with one memory."""

    async def never(_: Replica) -> None:
        pytest.fail("it started")

    load = PolicyPerSession(Obedient) if kind == "factory" else lambda on_stage: Remembering()
    with pytest.raises(
        ConfigError, match=r"return what it remembers as ActionChunk\.state, or deploy it with --session-state stays"
    ):
        with_replica(load, never)


async def ask_again(replica: Replica, one: Any, state: Any, forgotten: Any = ()) -> Any:
    """The outcome of a request that brings a session's state, and the state that comes back."""
    digest = read_described(await replica.describe()).digest
    packed = write_group(Group([one._replace(state=write_state(state))], digest, forgotten), "edge ")
    (outcome,) = read_answers(*await replica.infer(*joined(packed)), now=0.0).outcomes
    return outcome, read_state(outcome.chunk.state) if isinstance(outcome, Answered) else None


@pytest.mark.parametrize("kind", ["state", "factory"])
def test_what_a_policy_remembers_stays_here_and_its_edge_brings_a_token(kind: str) -> None:
    async def talk(replica: Replica) -> None:
        described = read_described(await replica.describe())
        assert described.stays
        first, token = await ask_again(replica, task(1, do="count"), None)
        other, _ = await ask_again(replica, task(2, do="count"), None)
        second, same = await ask_again(replica, task(1, do="count"), token)
        assert [value(one) for one in (first, other, second)] == [1, 1, 2]
        assert same == token
        lost, _ = await ask_again(replica, task(1, do="count"), "another replica's")
        assert isinstance(lost, PolicyLost)
        anew, newer = await ask_again(replica, task(1, do="count"), None)
        assert value(anew) == 1
        assert newer != token

    with_replica(PolicyPerSession(CountsBySelf) if kind == "factory" else recipe(), talk, session_state="stays")


def test_a_session_that_its_edge_has_ended_is_forgotten_and_one_that_has_begun_anew_is_not() -> None:
    async def talk(replica: Replica) -> None:
        _, token = await ask_again(replica, task(1, do="count"), None)
        _, newer = await ask_again(replica, task(1, do="count"), None)
        again, _ = await ask_again(replica, task(1, do="count"), newer, [(1, write_state(token))])
        assert value(again) == 2
        await ask_again(replica, task(2), None, [(1, write_state(newer))])
        lost, _ = await ask_again(replica, task(1, do="count"), newer)
        assert isinstance(lost, PolicyLost)

    with_replica(recipe(), talk, session_state="stays")


def test_a_session_that_stays_is_forgotten_after_an_hour_of_silence() -> None:
    async def talk(replica: Replica) -> None:
        _, token = await ask_again(replica, task(1, do="count"), None)
        for ago_s, is_lost in ((3000.0, False), (4000.0, True)):
            residents = vars(vars(replica)["_residents"])["_known"]
            residents["edge 1"] = residents["edge 1"]._replace(seen_at=time.monotonic() - ago_s)
            vars(replica)["_swept_at"] = -1e9
            await ask_again(replica, task(2), None)
            outcome, _ = await ask_again(replica, task(1, do="count"), token)
            assert isinstance(outcome, PolicyLost) is is_lost

    with_replica(recipe(), talk, session_state="stays")


def test_what_loading_raises_reaches_who_starts_it() -> None:
    async def never(_: Replica) -> None:
        pytest.fail("it started")

    with pytest.raises(ConfigError, match="there is no module 'nowhere'"):
        with_replica(Recipe("nowhere:make"), never)


def test_sessions_that_are_silent_are_forgotten_since_no_edge_tells() -> None:
    async def talk(replica: Replica) -> None:
        await ask(replica, task(1), task(2))
        assert set(vars(replica)["_seen_at"]) == {"edge 1", "edge 2"}
        vars(replica)["_seen_at"].update({"edge 1": -1e9, "edge 2": -1e9})
        vars(replica)["_swept_at"] = -1e9
        await ask(replica, task(3))
        assert set(vars(replica)["_seen_at"]) == {"edge 3"}

    with_replica(recipe(), talk)
