"""An edge's engine: follows the versions of a policy on the cluster, each an application, one after the other.

A version that takes the place of the last one within its application is Serve's to roll, and sessions move. One that
stands beside it gets the sessions that begin from then on; the others end where they began.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence

from policyserve.core.log import Log
from policyserve.core.observer import Observers
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage
from policyserve.engine.engine import Change, Figure
from policyserve.engine.versions import CLOSE_S, VersionsEngine
from policyserve.ray import cluster
from policyserve.ray.asking import Watch
from policyserve.ray.engine import ApplicationEngine, Wanted

log = Log(__name__)


class RayEngine(VersionsEngine[ApplicationEngine]):
    """An Engine whose policy is on a cluster. max_queue, request_timeout_s: of this edge.

    watch: tells it what is deployed; None: one of its own.
    """

    def __init__(
        self, wanted: Wanted, max_queue: int, max_queue_s: float, request_timeout_s: float, watch: Watch | None = None
    ) -> None:
        self._wanted = wanted
        self._watch = watch or Watch()
        self._bounds = (max_queue, max_queue_s, request_timeout_s)
        super().__init__(self._make(""))
        self._taking: asyncio.Task[None] | None = None
        self._refused: set[str] = set()  # applications that cannot be served

    def figures(self) -> Sequence[Figure]:
        """What the lanes of the newest version count."""
        return self._versions.current.figures()

    def how_to_exchange(self, source: str, flags: Sequence[str], *, sessions_stay: bool) -> str:
        """See KeptEngine."""
        config = self._wanted.config
        where = [] if config.ray_address == "auto" else ["--ray-address", config.ray_address]
        stay = ["--sessions", "stay"] if sessions_stay else []
        words = ["policyserve", "cluster", "roll", config.deployed_as, source or "POLICY", *flags, *stay, *where]
        return f"it is on a cluster, and rolled there for all edges: {shlex.join(words)}"

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        """Connect, deploy the policy if it is not there, and wait for a replica; raises what any of that raised."""
        self._observers = observers
        spec = await self._versions.current.start(on_stage, observers)
        self._watch.add(self._look)
        return spec

    async def close(self, timeout_s: float) -> None:
        """Let go of the cluster; the replicas stay, for other edges."""
        await self._watch.remove(self._look)
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait([self._taking])
        await self._versions.close(timeout_s)

    def _make(self, application: str) -> ApplicationEngine:
        engine = ApplicationEngine(self._wanted, application, *self._bounds, self._watch)
        engine.on_change = self._change
        return engine

    def _change(self, change: Change) -> None:
        self.on_change(change)

    def _look(self, found: Sequence[cluster.Deployed]) -> bool:
        """See whether a newer version stands beside the current one, and whether those before are still there."""
        names = {one.name for one in found}
        for engine in self._versions.all:
            engine.is_gone = engine is not self._versions.current and engine.application not in names
        running = [one.name for one in found if one.running and one.name not in self._refused]
        newest = cluster.newest(self._wanted.config.deployed_as, running)
        both = [newest, self._versions.current.application]
        is_newer = newest and cluster.newest(self._wanted.config.deployed_as, both) != both[1]
        if is_newer and self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take_over(newest))
        return False

    async def _take_over(self, application: str) -> None:
        engine = self._versions.coming = self._make(application)
        try:
            spec = await engine.start(lambda stage: log.debug("%s: %s", application, stage), self._observers)
            self.on_change(Change(spec, sessions_move=False))
            self._versions.take_over(engine, sessions_stay=True)
            log.info("new sessions are served by %s", application)
        except Exception as error:  # the cluster's, or a spec that cannot be served: the version before stays
            self._refused.add(application)
            log.error("%s cannot be served, so the version before goes on: %s", application, error)
            await engine.close(CLOSE_S)
        finally:
            self._versions.coming = None
            self._taking = None
