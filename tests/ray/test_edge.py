"""An edge's engine as far as it goes without a cluster; test_drills.py has the rest."""

from __future__ import annotations

import asyncio
import threading

import pytest

from policyserve.core.errors import ConfigError
from policyserve.engine.engine import ChangingEngine, CountingEngine, Engine
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from policyserve.ray.edge import RayEngine
from policyserve.ray.engine import Wanted, in_thread
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server


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


def test_what_waits_for_ray_waits_in_a_thread_and_its_errors_come_back() -> None:
    def refuse() -> None:
        raise ConfigError("no cluster")

    async def ask() -> None:
        assert await in_thread(threading.get_ident) != threading.get_ident()
        with pytest.raises(ConfigError, match="no cluster"):
            await in_thread(refuse)

    asyncio.run(ask())


def test_it_closes_before_it_has_begun() -> None:
    asyncio.run(engine().close(1.0))
