"""A small cluster that has no replica left for a while, a node that falls silent, and an observation that kills.

Of each drill the ledger has to be balanced, as in test_drills.py. docs/cluster.md has the figures of a run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.errors import PolicyserveError
from tests.cli.serving import Serving
from tests.ray.counting import DEADLY, held
from tests.ray.fleet import Fleet, driving
from tests.ray.looking import figure, is_ready
from tests.ray.small_cluster import SmallCluster, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # Ray's own


def test_a_node_is_cut_off(counting: SmallCluster, fleet: Fleet) -> None:
    # The first drill: each node has a replica, as Serve placed them.
    with counting.cut_off() as silent:
        fleet.until_answered(200)
        until(lambda: len(set(counting.processes()) - silent) == 2, "no replica came elsewhere")
        fleet.until_answered(100)
    fleet.until_answered(100)  # what the node still had to say changes nothing
    fleet.end()
    fleet.check()
    assert not fleet.ledger["refused"], fleet.told


def test_the_replicas_follow_the_load_and_the_lanes_follow_them(counting: SmallCluster) -> None:
    with counting.scaled("by-load", 1, 3) as name, counting.edge("--deployed-as", name) as edge:
        until(lambda: figure(edge.url, "cluster_lanes") == 2, "no two lanes to the replica")
        with driving([edge.url], clients=24) as fleet:
            until(lambda: figure(edge.url, "cluster_replicas") == 3, "no replica came with the load")
            until(lambda: figure(edge.url, "cluster_lanes") == 6, "the lanes do not follow the replicas")
            fleet.until_answered(200)
        until(lambda: figure(edge.url, "cluster_replicas") == 1, "no replica went with the load")
        until(lambda: figure(edge.url, "cluster_lanes") == 2, "no two lanes to the replica")
        with driving([edge.url], clients=3) as few:
            few.until_answered(20)
    for one in (fleet, few):
        one.check()
        assert not one.ledger["refused"]


def test_all_replicas_die_at_once(counting: SmallCluster, edges: Sequence[Serving], fleet: Fleet) -> None:
    held(counting.pids).touch()
    for process in counting.processes():
        os.kill(process, signal.SIGKILL)
    for edge in edges:
        until(lambda edge=edge: not is_ready(edge.url), "an edge without a replica says that it is ready")
    held(counting.pids).unlink()
    counting.until_running(2)
    for edge in edges:
        until(lambda edge=edge: is_ready(edge.url), "an edge with replicas says that it is not ready")
    fleet.until_answered(100)
    fleet.end()
    fleet.check()
    assert not fleet.ledger["refused"], fleet.told


def test_all_replicas_freeze_at_once(counting: SmallCluster, fleet: Fleet) -> None:
    frozen = set(counting.processes())
    for process in frozen:
        os.kill(process, signal.SIGSTOP)
    until(lambda: len(set(counting.processes()) - frozen) == 2, "no replicas took their places")
    fleet.until_answered(100)
    for process in frozen & set(counting.processes()):  # what they were sent may be answered after all
        os.kill(process, signal.SIGCONT)
    fleet.until_answered(100)
    fleet.end()
    fleet.check()
    assert all("no replica answered within 2 s" in told for told in fleet.told), fleet.told
    counting.until_running(2)


def test_an_observation_that_kills_is_given_up_and_the_others_are_answered(
    counting: SmallCluster, edges: Sequence[Serving], fleet: Fleet
) -> None:
    before = set(counting.processes())
    with Client(edges[0].url, dialect="openpi", timeout_s=60) as killing:
        with pytest.raises(PolicyserveError, match="replicas were asked one after the other, 3 at most"):
            killing.infer({"obs": np.array([99, DEADLY])})
        fleet.until_answered(100)
        counting.until_running(2)
        assert not before & set(counting.processes())
        assert killing.infer({"obs": np.array([99, 1.0])}).actions.reshape(-1)[:3].tolist() == [99, 1, 1]
    fleet.until_answered(100)
    fleet.end()
    fleet.check()
    assert fleet.ledger["refused"] <= 1, fleet.told
    assert all(
        int(told.split()[1].strip(",")) % 2 for told in fleet.told
    )  # the other edge's, which has its own suspects


def test_no_node_has_room_for_a_replica(counting: SmallCluster) -> None:
    with counting.edge("--request-timeout-s", "3") as edge, driving([edge.url]) as fleet:
        counting.lose_all_nodes()
        until(lambda: fleet.ledger["refused"] >= 12, "a request without a replica waits beyond its deadline")
        until(lambda: not is_ready(edge.url), "an edge without a replica says that it is ready")
        counting.add_nodes(2)
        counting.until_running(2)
        until(lambda: is_ready(edge.url), "an edge with replicas says that it is not ready")
        refused = fleet.ledger["refused"]
        fleet.until_answered(100)
    fleet.check()
    assert fleet.ledger["refused"] == refused
    assert all("no answer within 3 s; no replica answers: " in told for told in fleet.told), fleet.told
