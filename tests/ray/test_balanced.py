"""docs/balancer.md's HAProxy in front of two edges of a small cluster: one is killed and comes back, one is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.haproxy import haproxy
from tests.integration.test_balancer import configuration
from tests.ray.fleet import driving
from tests.ray.looking import figure
from tests.ray.small_cluster import SmallCluster, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # Ray's own

BEHIND = ("--proxy-protocol", "--trusted-proxies", "127.0.0.1")
CLIENTS = 12


def test_clients_behind_a_balancer_go_on_when_an_edge_is_killed_and_when_one_is_stopped(
    counting: SmallCluster, tmp_path: Path
) -> None:
    with counting.edge(*BEHIND) as killed, counting.edge(*BEHIND) as stopped:
        ports = [int(edge.url.rpartition(":")[2]) for edge in (killed, stopped)]
        with (
            haproxy(tmp_path, configuration(*ports)) as port,
            driving([f"ws://127.0.0.1:{port}"], CLIENTS, begins_anew=True) as fleet,
        ):
            its_own = figure(killed.url, "sessions")
            assert 0 < its_own < CLIENTS
            killed.process.kill()
            until(lambda: figure(stopped.url, "sessions") == CLIENTS, "its clients are not at the other edge")
            fleet.until_answered(100)
            assert fleet.ledger["lost"] <= its_own
            with counting.edge(*BEHIND, port=ports[0]) as again:
                lost = fleet.ledger["lost"]
                code, _ = stopped.stop()
                until(lambda: figure(again.url, "sessions") == CLIENTS, "the edge that came back has not all clients")
                fleet.until_answered(100)
                assert code == 0
                assert fleet.ledger["lost"] - lost <= CLIENTS  # what each sent as its edge closed
                assert fleet.ledger["begun anew"] <= CLIENTS  # those that had sent nothing then
                fleet.end()
        fleet.check(lost=its_own + CLIENTS)
        assert not fleet.ledger["refused"]
