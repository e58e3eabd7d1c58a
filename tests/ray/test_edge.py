"""An edge's engine as far as it goes without a cluster, and on one that is pretended; test_drills.py has the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from policyserve.core.effects import Answered
from policyserve.core.errors import ConfigError, DeadlineExceeded, PolicyLost
from policyserve.engine.engine import Change, ChangingEngine, CountingEngine, Engine
from policyserve.ray import roster
from policyserve.ray.application import write_recipe
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from policyserve.ray.edge import RayEngine
from policyserve.ray.engine import Wanted
from policyserve.ray.groups import Described
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server
from tests.engine.running import PATIENCE_S, recipe, until
from tests.ray import loopback
from tests.ray.pretended import SPEC, Pretended, outcomes, pretended, start

__all__ = ["pretended"]  # a fixture


def engine() -> RayEngine:
    return RayEngine(Wanted(ClusterConfig(), ReplicaSettings()), 100, 1.0, 10.0)


def test_it_is_what_a_server_is_handed() -> None:
    made = engine()
    assert isinstance(made, Engine)
    assert isinstance(made, ChangingEngine)
    assert isinstance(made, CountingEngine)


def test_what_it_counts_stands_on_the_page_of_metrics() -> None:
    async def names() -> set[str]:
        server = Server(engine(), ServerConfig(port=0))
        return {family.name for family in vars(server)["_metrics"].collect()}

    counted = {f"policyserve_{figure.name}" for figure in engine().figures()}
    assert counted <= asyncio.run(names())


def test_it_closes_before_it_has_begun() -> None:
    asyncio.run(engine().close(1.0))


def run(engine: RayEngine, talk: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await start(engine)
        try:
            await asyncio.wait_for(talk(), PATIENCE_S)
        finally:
            await engine.close(1.0)

    asyncio.run(bounded())


def figure(engine: RayEngine, name: str) -> float:
    return next(one.value for one in engine.figures() if one.name == f"cluster_{name}")


def test_sessions_that_stay_with_replicas_need_a_carrier_that_can_choose_one(pretended: Pretended) -> None:
    pretended.have("arm").described = Described(SPEC, "1", stays=True)
    with pytest.raises(
        ConfigError, match=r"carrier: sessions stay .*--session-state stays.*: expected tcp, got handle"
    ):
        asyncio.run(start(pretended.engine(deployed_as="arm")))


@pytest.mark.parametrize(("stays", "shares"), [(True, [0, 4]), (False, [2, 2])])
def test_a_session_that_stays_is_one_replicas_and_any_other_is_each_ones_in_turn(
    stays: bool, shares: list[int], pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = Described(SPEC, "1", stays)
    pretended.have("policy", 2).described = described
    engine = pretended.engine(carrier="tcp")

    async def talk(bench: loopback.Bench) -> None:
        replicas = [loopback.EchoReplica(described) for _ in range(2)]
        for replica in replicas:
            await bench.open(replica)
        monkeypatch.setattr(roster, "find", lambda _: list(bench.places))
        await start(engine)
        links = vars(vars(engine)["_versions"].current)["_links"]
        await until(lambda: len(links.open) == 2)
        for _ in range(4):
            assert isinstance((await outcomes(engine, 1))[0], Answered)
        await engine.close(1.0)
        assert sorted(len(replica.groups) for replica in replicas) == shares

    loopback.run(talk)


def test_what_is_there_is_served_and_what_is_not_is_deployed(pretended: Pretended) -> None:
    pretended.have("arm", 2)
    for name in ("arm", "leg"):
        engine = pretended.engine(deployed_as=name)

        async def talk(engine: RayEngine = engine) -> None:
            assert isinstance((await outcomes(engine, 1))[0], Answered)

        run(engine, talk)
    assert pretended.deploys == ["leg"]


def test_lanes_follow_the_number_of_replicas_up_to_what_an_edge_has_time_for(pretended: Pretended) -> None:
    pretended.have("policy", 2)
    engine = pretended.engine()

    async def talk() -> None:
        await until(lambda: figure(engine, "lanes") == 4)
        pretended.have("policy", 50)
        await until(lambda: figure(engine, "lanes") == 8)  # nobody knows yet how long a group takes
        await outcomes(engine, 1, 2, 3)
        pretended.have("policy", 49)
        await until(lambda: figure(engine, "replicas") == 49)
        assert figure(engine, "lanes") == 2  # no time at all

    run(engine, talk)


def test_without_a_replica_requests_wait_and_are_answered_once_there_is_one(pretended: Pretended) -> None:
    pretended.have("policy", 1)
    engine = pretended.engine()

    async def talk() -> None:
        pretended.have("policy", 0)
        await until(lambda: engine.stage == "waiting for a replica")
        asked = asyncio.ensure_future(outcomes(engine, 1))
        await asyncio.sleep(0)
        assert not asked.done()
        pretended.there["policy"] = replace(pretended.there["policy"], running=1)  # nobody says so: it is looked for
        assert isinstance((await asked)[0], Answered)
        assert engine.stage == ""

    run(engine, talk)


def test_a_policy_that_is_removed_is_waited_for(pretended: Pretended) -> None:
    pretended.have("policy", 1)
    engine = pretended.engine()

    async def talk() -> None:
        removed = pretended.there.pop("policy")
        pretended.watch.soon()
        await until(lambda: engine.stage == "waiting for a replica")
        assert figure(engine, "replicas") == 0
        pretended.there["policy"] = removed
        await until(lambda: engine.stage == "")
        assert isinstance((await outcomes(engine, 1))[0], Answered)

    run(engine, talk)


@pytest.mark.parametrize(("flags", "is_told"), [({}, False), ({"seed": 2}, True)])
def test_a_policy_that_is_there_with_another_recipe_is_served_and_told(
    flags: dict[str, int], is_told: bool, pretended: Pretended, caplog: pytest.LogCaptureFixture
) -> None:
    pretended.have("policy", 1)
    told = write_recipe(replace(recipe(), arguments={**recipe().arguments, **flags}))
    pretended.there["policy"] = replace(pretended.there["policy"], recipe=told)

    async def talk() -> None: ...

    run(pretended.engine(), talk)
    assert ("policy is deployed already, with another policy or other flags than here" in caplog.text) is is_told


def test_a_request_that_waits_past_its_deadline_for_a_replica_is_told_what_the_stage_says(
    pretended: Pretended,
) -> None:
    pretended.have("policy", 1)
    engine = pretended.engine(request_timeout_s=0.05)

    async def talk() -> None:
        pretended.have("policy", 0)
        await until(lambda: engine.stage)
        (outcome,) = await outcomes(engine, 1)
        assert isinstance(outcome, DeadlineExceeded)
        assert str(outcome) == f"no answer within 0.05 s; no replica answers: {engine.stage}"

    run(engine, talk)


def test_while_the_cluster_is_away_an_edge_is_ready_as_long_as_it_reaches_a_replica(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended.have("policy", 1)
    engine = pretended.engine(carrier="tcp")

    async def talk(bench: loopback.Bench) -> None:
        replica = await bench.replica()
        monkeypatch.setattr(roster, "find", lambda _: list(bench.places))
        await start(engine)
        pretended.away = ConnectionError("the head node is gone")
        pretended.watch.soon()
        await until(lambda: pretended.watch.is_away)
        assert engine.stage == ""
        replica.listener.close()
        await until(lambda: engine.stage == "waiting for a replica")
        pretended.away = None
        pretended.watch.soon()
        await until(lambda: engine.stage == "")
        await engine.close(1.0)

    loopback.run(talk)


def test_a_lost_call_has_the_cluster_asked_soon(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    hurries: list[str] = []
    replicas = pretended.have("policy", 1)
    monkeypatch.setattr(pretended.watch, "soon", lambda: hurries.append("soon"))
    engine = pretended.engine(max_tries=1)

    async def talk() -> None:
        await outcomes(engine, 1)
        hurries.clear()
        replicas.lost = PolicyLost("its process ended")
        assert isinstance((await outcomes(engine, 1))[0], PolicyLost)
        assert hurries == ["soon"]

    run(engine, talk)


def test_sessions_begin_on_a_version_beside_the_last_and_stay_where_they_began(pretended: Pretended) -> None:
    before = pretended.have("policy", 1)
    engine = pretended.engine()
    changes: list[Change] = []
    engine.on_change = changes.append

    async def talk() -> None:
        await outcomes(engine, 1)
        beside = pretended.have("policy@2", 1)
        await until(lambda: changes != [])
        assert not changes[0].sessions_move
        await outcomes(engine, 1, 2)
        assert (len(before.calls), len(beside.calls)) == (2, 1)

    run(engine, talk)


def test_a_version_with_another_spec_takes_new_sessions_and_ends_the_others(pretended: Pretended) -> None:
    pretended.have("policy", 1)
    engine = pretended.engine()
    changes: list[Change] = []
    engine.on_change = changes.append

    async def talk() -> None:
        await outcomes(engine, 1)
        pretended.have("policy", 1, replace(SPEC, name="another"))
        asyncio.get_running_loop().create_task(outcomes(engine, 1))
        await until(lambda: changes != [])
        assert changes[0].spec.name == "another"
        assert changes[0].closing is not None
        assert isinstance((await outcomes(engine, 3))[0], Answered)

    run(engine, talk)


def test_engines_of_one_server_ask_together(pretended: Pretended) -> None:
    async def talk() -> None:
        engines = [pretended.engine(deployed_as=name) for name in ("arm", "leg", "eye")]
        for engine in engines:
            await start(engine)
        assert len([one for one in asyncio.all_tasks() if "_keep_asking" in repr(one)]) == 1
        for engine in engines:
            await engine.close(1.0)
        assert not [one for one in asyncio.all_tasks() if "_keep_asking" in repr(one)]

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


def test_a_swap_is_the_clusters_and_the_command_for_it_is_told() -> None:
    made = RayEngine(Wanted(ClusterConfig(deployed_as="arm"), ReplicaSettings()), 100, 1.0, 10.0)
    told = made.how_to_exchange("my policy.py:make", ["--step", "7"], sessions_stay=True)
    assert told.endswith(": policyserve cluster roll arm 'my policy.py:make' --step 7 --sessions stay")
    there = RayEngine(Wanted(ClusterConfig(ray_address="10.0.0.3:6379"), ReplicaSettings()), 100, 1.0, 10.0)
    told = there.how_to_exchange("", (), sessions_stay=False)
    assert told.endswith(": policyserve cluster roll policy POLICY --ray-address 10.0.0.3:6379")
