"""A policy on a cluster of Ray on hosts of their own: the network is cut, is slow, loses packets, and the head dies.

What the hosts are is in machines.py. Of each drill the ledger has to be balanced, as in test_drills.py. docs/cluster.md
has the figures of a run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from policyserve import Client
from tests.cli.serving import Serving
from tests.ray.fleet import Fleet, driving
from tests.ray.looking import figure, is_ready
from tests.ray.machines import Cable, Host, network, why_not
from tests.ray.small_cluster import until
from tests.ray.spread_cluster import SpreadCluster, spread_cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]  # Ray's own

CLIENTS = 12
RAY_GIVES_UP_S = 300.0  # a host that is silent, or its head: it takes more than a minute, on a busy machine longer


@pytest.fixture(scope="session", autouse=True)
def hosts() -> None:
    """Skip where there can be none."""
    why = why_not()
    if why:
        pytest.skip(why)


@pytest.fixture(scope="module")
def spread(token: None) -> Iterator[SpreadCluster]:
    with spread_cluster() as made:
        yield made


def check(fleet: Fleet, lost: int = 0) -> None:
    fleet.end()
    fleet.check(lost)
    assert not fleet.ledger["refused"], fleet.told


def test_hosts_are_gone_at_the_end_even_if_a_test_fails() -> None:
    devices = set(os.listdir("/sys/class/net"))
    used: list[tuple[Host, subprocess.Popen[bytes]]] = []

    def fail() -> None:
        with network() as net:
            host = net.host("one")
            command = [sys.executable, "-m", "http.server", "--bind", host.address, "8000"]
            server = subprocess.Popen(host.inside(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            used.append((host, server))
            until(lambda: _answers(host), "a host is not reached")
            net.cut(host)
            assert not _answers(host)
            net.mend(host)
            until(lambda: _answers(host), "a host is not reached again")
            assert host.processes(" ".join(command))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    ((host, server),) = used
    server.wait(timeout=30)
    assert not host.processes(sys.executable)
    assert set(os.listdir("/sys/class/net")) == devices


def test_replicas_answer_over_a_network(spread: SpreadCluster) -> None:
    assert spread.announced() == {spread.one.address, spread.two.address}
    assert [len(spread.replicas(host)) for host in (spread.one, spread.two)] == [1, 1]
    with spread.edge() as edge, driving([edge.url], CLIENTS) as fleet:
        fleet.until_answered(300)
        check(fleet)


def test_a_network_is_slow(spread: SpreadCluster) -> None:
    with spread.edge() as edge:
        before_ms = _round_trip_ms(edge)
        with ExitStack() as slow:
            cables = [slow.enter_context(spread.net.slow(host, delay_ms=5)) for host in (spread.one, spread.two)]
            slow_ms = _round_trip_ms(edge)
            with driving([edge.url], CLIENTS) as fleet:
                fleet.until_answered(300)
                check(fleet)
    print(f"round trip {before_ms:.1f} ms, {slow_ms:.1f} ms with 5 ms each way between edge and replicas")
    _check_used(cables)


def test_a_network_loses_packets(spread: SpreadCluster) -> None:
    with spread.edge() as edge, ExitStack() as bad:
        cables = [bad.enter_context(spread.net.slow(host, loss=0.01)) for host in (spread.one, spread.two)]
        with driving([edge.url], CLIENTS) as fleet:
            fleet.until_answered(1000)
            check(fleet)
    _check_used(cables)
    assert sum(cable.lost for cable in cables)


def test_the_head_is_cut_off_for_a_moment(spread: SpreadCluster) -> None:
    with spread.edge() as edge, driving([edge.url], CLIENTS) as fleet:
        until(lambda: figure(edge.url, "cluster_replicas") == 2, "the edge is not told of its replicas")
        spread.net.cut(spread.head)
        until(lambda: "the cluster does not answer" in spread.edge_log.read_text(), "nobody is told")
        assert is_ready(edge.url)  # since it answers
        fleet.until_answered(100)
        spread.net.mend(spread.head)
        until(lambda: "the cluster answers again" in spread.edge_log.read_text(), "nobody is told of its return")
        fleet.until_answered(100)
        check(fleet)


def test_a_network_is_cut_in_two(spread: SpreadCluster) -> None:
    with spread.edge() as edge, driving([edge.url], CLIENTS) as fleet:
        before, node = spread.replicas(spread.two), spread.nodes["two"]
        spread.net.cut(spread.two)
        fleet.until_answered(200)
        until(lambda: len(spread.replicas(spread.one)) == 2, "no replica came elsewhere", RAY_GIVES_UP_S)
        until(lambda: spread.two.address not in spread.living(), "Ray does not give the node up", RAY_GIVES_UP_S)
        fleet.until_answered(100)
        assert spread.replicas(spread.two) == before  # it works on, and knows nothing
        spread.net.mend(spread.two)
        until(lambda: node.poll() is not None, "a node that was given up goes on")
        until(lambda: not spread.replicas(spread.two), "a replica that was given up goes on")
        fleet.until_answered(100)
        check(fleet)
    spread.begin_node(spread.two)  # as what looks after a machine's services would
    assert spread.announced() == {spread.one.address}


def test_the_head_dies_and_all_is_begun_anew(spread: SpreadCluster) -> None:
    with spread.edge() as edge, driving([edge.url], CLIENTS) as fleet:
        nodes = dict(spread.nodes)
        spread.head.end_all()
        until(lambda: "the cluster does not answer" in spread.edge_log.read_text(), "nobody is told")
        assert is_ready(edge.url)  # since it answers
        fleet.until_answered(100)
        until(lambda: edge.process.poll() is not None, "an edge outlives its head for ever", RAY_GIVES_UP_S)
        for host in (spread.edges, spread.one, spread.two):
            until(lambda name=host.name: nodes[name].poll() is not None, "a node outlives its head for ever")
            until(lambda host=host: not spread.replicas(host), "a replica outlives its head for ever")
        spread.start()
        with spread.edge():
            fleet.until_answered(100)
            check(fleet, lost=CLIENTS)


def _answers(host: Host) -> bool:
    """Whether its server is reached."""
    try:
        with urllib.request.urlopen(f"http://{host.address}:8000", timeout=1):
            return True
    except OSError:
        return False


def _round_trip_ms(edge: Serving) -> float:
    """The median of a client that asks alone, one request after the other."""
    took: list[float] = []
    with Client(edge.url, dialect="openpi", timeout_s=60) as client:
        for number in range(100):
            began_at = time.monotonic()
            answer = client.infer({"obs": np.array([7.0, number])}).actions.reshape(-1)
            took.append((time.monotonic() - began_at) * 1e3)
            assert answer[:3].tolist() == [7, number, number + 1]
    return statistics.median(took)


def _check_used(cables: list[Cable]) -> None:
    print(cables)
    assert all(cable.carried > 100 for cable in cables)
