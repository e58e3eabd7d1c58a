"""A policy on a small cluster, with clients of each founding dialect, and what may happen to it meanwhile.

Of each drill the ledger has to be balanced: every request answered or refused, no answer another session's, no state
lost. docs/cluster.md has the figures of a run.
"""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Sequence
from importlib import import_module

import numpy as np
import pytest

from policyserve import Client
from policyserve.ray import cluster
from policyserve.ray.application import app
from tests.cli.serving import Serving
from tests.ray.fleet import Dialects, Fleet, driving
from tests.ray.small_cluster import NAME, SmallCluster, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # Ray's own


WHOSE = pytest.mark.parametrize("dialects", ["ours", "originals"], indirect=True)


def check(fleet: Fleet, lost: int = 0) -> None:
    fleet.end()
    fleet.check(lost)


@WHOSE
def test_calm(fleet: Fleet) -> None:
    fleet.until_answered(300)
    check(fleet)
    assert not fleet.ledger["refused"]


@WHOSE
def test_a_replica_is_killed(counting: SmallCluster, fleet: Fleet) -> None:
    os.kill(counting.processes()[0], signal.SIGKILL)
    fleet.until_answered(200)
    until(lambda: len(counting.processes()) == 2, "no replica took its place")
    fleet.until_answered(200)
    check(fleet)
    assert not fleet.ledger["refused"]


@WHOSE
def test_a_replica_freezes(counting: SmallCluster, fleet: Fleet) -> None:
    frozen, before = counting.processes()[0], set(counting.processes())
    os.kill(frozen, signal.SIGSTOP)
    fleet.until_answered(200)
    until(lambda: set(counting.processes()) - before, "no replica took its place")
    fleet.until_answered(100)
    if frozen in counting.processes():  # what it was sent may be answered after all
        os.kill(frozen, signal.SIGCONT)
    fleet.until_answered(100)
    check(fleet)
    counting.until_running(2)


@WHOSE
def test_a_node_is_lost(counting: SmallCluster, fleet: Fleet) -> None:
    counting.lose_a_node()
    fleet.until_answered(300)
    counting.until_running(2)
    fleet.until_answered(100)
    check(fleet)
    assert not fleet.ledger["refused"]


@WHOSE
def test_a_version_is_rolled(counting: SmallCluster, fleet: Fleet) -> None:
    (last,) = fleet.versions
    cluster.roll(NAME, counting.recipe(last + 1))
    until(lambda: fleet.versions[last + 1], "the next version answers nobody")
    counting.until_running(2)
    before = fleet.versions[last]
    fleet.until_answered(200)
    assert fleet.versions[last] - before < 50  # groups that were on their way
    check(fleet)
    assert not fleet.ledger["refused"]


@WHOSE
def test_it_is_scaled_and_the_replicas_that_stay_are_not_touched(counting: SmallCluster, fleet: Fleet) -> None:
    before = set(counting.processes())
    cluster.scale(NAME, 3, 3)
    counting.until_running(3)
    assert before < set(counting.processes())
    fleet.until_answered(100)
    cluster.scale(NAME, 1, 1)
    counting.until_running(1)
    fleet.until_answered(100)
    cluster.scale(NAME, 2, 2)
    counting.until_running(2)
    fleet.until_answered(100)
    check(fleet)
    assert not fleet.ledger["refused"]


@WHOSE
def test_the_controller_of_serve_is_killed(fleet: Fleet) -> None:
    controller = import_module("ray.serve.context")._get_global_client()._controller
    os.kill(import_module("ray").get(controller.get_pid.remote()), signal.SIGKILL)
    fleet.until_answered(400)
    check(fleet)
    assert not fleet.ledger["refused"]


def test_groups_may_go_through_ray_instead(counting: SmallCluster) -> None:
    with counting.edge("--carrier", "handle") as edge, driving([edge.url]) as fleet:
        fleet.until_answered(50)
    fleet.check()
    assert not fleet.ledger["refused"]


def test_commands_do_what_they_say(counting: SmallCluster) -> None:
    assert "2 of 2 replicas answer" in counting.command("status")
    counting.command("scale", NAME, "1")
    counting.until_running(1)
    counting.command("scale", NAME, "2")
    counting.until_running(2)


def test_what_serve_run_began_is_served_as_well(counting: SmallCluster) -> None:
    arguments = {"policy": "tests.ray.counting:policy", "num_gpus": 0, "num_cpus": 0.1}
    import_module("ray.serve").run(app(arguments), name="own", route_prefix=None)
    try:
        with counting.edge("--deployed-as", "own") as edge:
            assert _versions_of_new_sessions(edge) == {1}
    finally:
        import_module("ray.serve").delete("own")


@WHOSE
def test_an_edge_is_killed_and_costs_its_own_requests_alone(
    counting: SmallCluster, edges: Sequence[Serving], dialects: Dialects
) -> None:
    with counting.edge() as doomed, driving([edges[0].url, doomed.url], dialects=dialects) as fleet:
        doomed.process.kill()
        fleet.urls = [edges[0].url]
        fleet.until_answered(200)
    fleet.check(lost=6)  # half of the clients were its own
    assert not fleet.ledger["refused"]


@WHOSE
def test_an_edge_that_stops_answers_what_it_has(
    counting: SmallCluster, edges: Sequence[Serving], dialects: Dialects
) -> None:
    with counting.edge() as leaving, driving([edges[0].url, leaving.url], dialects=dialects) as fleet:
        fleet.urls = [edges[0].url]
        code, _ = leaving.stop()
        fleet.until_answered(100)
    assert code == 0
    fleet.check(lost=6)  # what was sent while it closed


def test_another_spec_takes_over_and_sessions_of_the_old_one_are_told(
    counting: SmallCluster, edges: Sequence[Serving]
) -> None:
    with driving([edges[0].url], begins_anew=True) as fleet:
        cluster.roll(NAME, counting.recipe(8, name="counting anew"))
        until(lambda: fleet.versions[8], "the next version answers nobody")
        counting.until_running(2)
        fleet.until_answered(100)
    fleet.check(lost=12)
    assert fleet.ledger["begun anew"] <= 12


def test_a_version_beside_the_last_gets_the_sessions_that_begin_and_the_others_stay(counting: SmallCluster) -> None:
    with counting.edge() as edge, driving([edge.url]) as staying:
        before = set(staying.versions)
        application, last = cluster.roll(NAME, counting.recipe(9), sessions_stay=True)
        cluster.wait_until_running(application, lambda _: None)
        until(lambda: _versions_of_new_sessions(edge) == {9}, "sessions that begin go to the last version")
        staying.until_answered(100)
        assert set(staying.versions) == before
        staying.end()
        staying.check()
        assert not staying.ledger["refused"]
        cluster.remove_version(last)
        assert _versions_of_new_sessions(edge) == {9}


def test_an_edge_serves_several_policies_and_deploys_those_that_are_not_there(counting: SmallCluster) -> None:
    policies = [f"{NAME}=tests.ray.counting:policy", "pole=cartpole_ppo"]
    with counting.edge("--num-gpus", "0", "--num-cpus", "0.1", policies=policies) as edge:
        with driving([edge.url], clients=3) as fleet, Client(f"{edge.url}/pole") as client:
            assert client.infer({"obs": np.zeros(4, np.float32)}).actions in (0, 1)
            cluster.remove("pole")  # disturbs no other
            fleet.until_answered(50)
        fleet.check()
        assert not fleet.ledger["refused"]
        page = urllib.request.urlopen(f"{edge.url.replace('ws', 'http', 1)}/metrics").read().decode()
        assert 'policyserve_cluster_calls_total{policy="pole"} 1.0' in page


def test_a_replica_that_keeps_sessions_is_killed_and_costs_its_own_sessions_alone(counting: SmallCluster) -> None:
    with (
        counting.staying("staying") as processes,
        counting.edge(policies=("tests.ray.counting:policy", "--deployed-as", "staying")) as edge,
    ):
        with driving([edge.url], begins_anew=True) as fleet:
            fleet.until_answered(100)
            os.kill(processes[0], signal.SIGKILL)
            fleet.until_answered(300)
        fleet.check()
        assert 0 < fleet.ledger["refused"] < 12, fleet.told


def _versions_of_new_sessions(edge: Serving) -> set[int]:
    with driving([edge.url], clients=3) as fleet:
        pass
    fleet.check()
    return set(fleet.versions)
