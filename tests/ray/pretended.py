"""A cluster that is none: what an edge's engine sees of one, with replicas that answer at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from policyserve.core.effects import Outcome
from policyserve.core.spec import PolicySpec
from policyserve.engine.isolated.codec import Packed
from policyserve.ray import cluster
from policyserve.ray.asking import Watch
from policyserve.ray.cluster import Deployed
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from policyserve.ray.edge import RayEngine
from policyserve.ray.engine import Wanted
from policyserve.ray.groups import Described, Parts
from tests.engine.lanes import HandCarrier
from tests.engine.running import NOBODY, PATIENCE_S, recipe, task

SPEC = PolicySpec("pretended", None, None)


class Replicas(HandCarrier):
    """The replicas of one application. lost: what a call ends with, in place of an answer."""

    lost: Exception | None = None

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        if self.lost is not None:
            raise self.lost
        call = len(self.calls)
        asyncio.get_running_loop().call_soon(lambda: self.echo(call))
        return await super().send(group, timeout_s)

    async def describe(self, timeout_s: float) -> Described:
        return self.described


class Pretended:
    """What is deployed, by name. deploys: the names that edges deployed. away: raised by whoever asks the cluster."""

    def __init__(self) -> None:
        self.there: dict[str, Deployed] = {}
        self.replicas: dict[str, Replicas] = {}
        self.deploys: list[str] = []
        self.away: Exception | None = None
        self.watch = Watch(self._deployed, soon_s=0.001)

    def have(self, name: str, running: int = 1, spec: PolicySpec = SPEC) -> Replicas:
        """Have so many replicas of an application."""
        before = self.there.get(name, Deployed(name, "1", "RUNNING", 0, 0))
        self.there[name] = replace(before, running=running, wanted=max(running, 1))
        self.replicas.setdefault(name, Replicas(Described(spec, "1"))).described = Described(spec, "1")
        self.watch.soon()
        return self.replicas[name]

    def _deployed(self) -> list[Deployed]:
        if self.away is not None:
            raise self.away
        return list(self.there.values())

    def deploy(self, name: str, *_: Any) -> str:
        self.deploys.append(name)
        self.have(name)
        return name

    def engine(self, request_timeout_s: float = PATIENCE_S, **config: Any) -> RayEngine:
        """An edge's, which is not started."""
        wanted = Wanted(ClusterConfig(**{"carrier": "handle", **config}), ReplicaSettings(), recipe())
        return RayEngine(wanted, 100, 10.0, request_timeout_s, self.watch)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """A cluster on which nothing is deployed, in place of Ray's."""
    found = Pretended()
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    monkeypatch.setattr(cluster, "connect", nothing)
    monkeypatch.setattr(cluster, "wait_until_running", nothing)
    monkeypatch.setattr(cluster, "status", lambda: list(found.there.values()))
    monkeypatch.setattr(cluster, "deploy", found.deploy)
    monkeypatch.setattr(cluster, "handle_of", lambda name: name)
    monkeypatch.setattr("policyserve.ray.engine.HandleCarrier", lambda name: found.replicas[name])
    return found


async def start(engine: RayEngine) -> PolicySpec:
    """Start it, with nobody to tell of it."""
    return await engine.start(lambda _: None, NOBODY)


async def outcomes(engine: RayEngine, *sessions: int) -> Sequence[Outcome]:
    """Of one request of each session."""
    asked: list[asyncio.Future[Outcome]] = []
    for session in sessions:
        asked.append(asyncio.get_running_loop().create_future())
        engine.submit(task(session), asyncio.get_running_loop().time(), asked[-1].set_result)
    return await asyncio.gather(*asked)
