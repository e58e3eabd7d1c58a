"""An engine over one application of the cluster: hands requests to its lanes, as many as its replicas need."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from policyserve.core.errors import ConfigError, NotReady, PolicyserveError
from policyserve.core.log import Log
from policyserve.core.observer import Observers
from policyserve.core.recipe import Recipe
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage, Task
from policyserve.engine.batcher import Batcher
from policyserve.engine.engine import Change, Figure, OnOutcome
from policyserve.engine.routing import Router
from policyserve.engine.scheduler import Scheduler
from policyserve.ray import cluster, roster
from policyserve.ray.application import write_recipe
from policyserve.ray.asking import Watch, in_thread
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from policyserve.ray.groups import Described
from policyserve.ray.handle import HandleCarrier
from policyserve.ray.lane import WAITING, Carrier, Edge, Lane, Tallies
from policyserve.ray.lane_count import lane_count
from policyserve.ray.tcp import Links, PinnedCarrier, TcpCarrier

log = Log(__name__)

_MOST_IN_GROUP = 256  # requests: more make a message of hundreds of megabytes, with camera pictures
_DESCRIBE_S = 30.0
_CONNECT_S = 30.0  # to a first replica


@dataclass(frozen=True)
class Wanted:
    """A policy on the cluster. recipe: what loads it, where it is not deployed; None: it has to be there."""

    config: ClusterConfig
    settings: ReplicaSettings
    recipe: Recipe | None = None


class ApplicationEngine:
    """An Engine whose policy is an application of the cluster. max_queue, request_timeout_s: of this edge.

    application: its name; empty: the newest version of what is wanted, once it has started. watch: tells it what is
    deployed. is_gone: the application was removed, and its sessions cannot go on.
    """

    def __init__(
        self,
        wanted: Wanted,
        application: str,
        max_queue: int,
        max_queue_s: float,
        request_timeout_s: float,
        watch: Watch,
    ) -> None:
        self.on_change: Callable[[Change], None] = lambda _: None
        self.application = application
        self.is_gone = False
        self.tallies = Tallies()
        self._wanted = wanted
        self._queue = (max_queue, max_queue_s)
        self._request_timeout_s = request_timeout_s
        self._name = f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()} "  # no two edges have the same
        self._lanes: _Lanes | None = None
        self._before: list[_Lanes] = []  # of specs before, that still have requests
        self._running = 0  # replicas
        self._asks_spec = False  # a replica served another one
        self._links = Links(lambda: in_thread(lambda: roster.find(self.application)))
        self._watch = watch
        self._following: asyncio.Task[None] | None = None  # another spec

    @property
    def stage(self) -> str:
        """What is waited for while no replica can answer."""
        if self._lanes is None:
            return ""
        # While the cluster tells nothing, the connections tell whether a replica is there.
        is_cut_off = self._watch.is_away and self._wanted.config.carrier == "tcp" and not self._links.open
        return WAITING if is_cut_off else self._lanes.edge.stage

    @property
    def is_working(self) -> bool:
        """Whether a group is under way: the event loop then sleeps and never polls."""
        return any(lanes.router.is_working for lanes in self._all)

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        return sum(lanes.router.load for lanes in self._all)

    @property
    def lane_count(self) -> int:
        """Lanes to the replicas."""
        return 0 if self._lanes is None else len(self._lanes.lanes)

    def figures(self) -> Sequence[Figure]:
        """What the lanes count, for /metrics."""
        counted = self.tallies
        return (
            Figure("cluster_calls", "Groups that were sent to replicas.", counted.calls),
            Figure("cluster_grouped_requests", "Requests in those groups.", counted.requests),
            Figure("cluster_sent_again", "Groups that were sent to another replica.", counted.sent_again),
            Figure("cluster_call_timeouts", "Groups that no replica answered in time.", counted.timeouts),
            Figure("cluster_late_answers", "Answers whose request had been refused.", counted.late),
            Figure("cluster_lanes", "Ways to the replicas.", self.lane_count, grows=False),
            Figure("cluster_replicas", "Replicas that answer.", self._running, grows=False),
            Figure("cluster_state_bytes", "Bytes of the states of one group.", counted.state_bytes, grows=False),
        )

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        """Connect, deploy the policy if it is not there, and wait for a replica; raises what any of that raised."""
        self._observers = observers
        on_stage("connecting to the cluster")
        await in_thread(lambda: cluster.connect(self._wanted.config), stays=True)
        self.application = await in_thread(lambda: self._prepare(on_stage))
        _take_signals_back()
        self._handle = HandleCarrier(await in_thread(lambda: cluster.handle_of(self.application)))
        found = await self._handle.describe(_DESCRIBE_S)
        _check_carrier(found, self._wanted.config)
        if self._wanted.config.carrier == "tcp":
            await self._links.start(_CONNECT_S)
        self._lanes = self._open(found)
        if found.stays:  # its first sessions shall have all replicas to stay with
            self._look(await in_thread(cluster.status))
        self._watch.add(self._look)
        log.info("policy %s, version %s, on the cluster", self.application, found.version)
        return found.spec

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """See Engine."""
        assert self._lanes is not None, "a request comes after start()"
        if self.is_gone:
            raise NotReady("the version that this session began with has been removed: connect again")
        self._lanes.router.submit(task, arrived_at, on_outcome)

    def forget(self, session: Hashable) -> None:
        """See Engine."""
        for lanes in self._all:
            lanes.router.forget(session)

    async def drained(self) -> None:
        """See Engine."""
        await asyncio.gather(*(lanes.router.drained() for lanes in self._all))

    async def close(self, timeout_s: float) -> None:
        """Let go of the cluster; the replicas stay, for other edges."""
        await self._watch.remove(self._look)
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        for lanes in self._all:
            lanes.end()
        await self._links.close()

    @property
    def _all(self) -> list[_Lanes]:
        return [*self._before, *([] if self._lanes is None else [self._lanes])]

    def _prepare(self, on_stage: OnStage) -> str:
        wanted, name = self._wanted, self._wanted.config.deployed_as
        there = {one.name: one for one in cluster.status()}
        application = self.application or cluster.newest(name, there)
        if not self.application and application:
            self._note_other_recipe(there[application])
        if not application and wanted.recipe is not None:
            application = cluster.deploy(name, wanted.recipe, wanted.config, wanted.settings)
        cluster.wait_until_running(application or name, on_stage)
        return application or name

    def _note_other_recipe(self, found: cluster.Deployed) -> None:
        """Say that what is deployed is not what this edge was told to serve: its command line shows something else."""
        wanted = self._wanted.recipe
        if wanted is not None and found.recipe and found.recipe != write_recipe(wanted):
            told = "%s is deployed already, with another policy or other flags than here, and served as it is: %s"
            log.warning(told, found.name, f"`policyserve cluster roll {found.name} POLICY` replaces it for all edges")

    def _open(self, found: Described) -> _Lanes:
        config = self._wanted.config
        edge = Edge(self._name, found.digest, config.call_timeout_s, config.max_tries, self._note_other_spec)
        edge.on_lost = self._watch.soon
        edge.tallies = self.tallies
        edge.stays = found.stays
        return _Lanes(lambda: self._carrier(found), edge, self._schedule)

    def _carrier(self, found: Described) -> Carrier:
        if self._wanted.config.carrier == "handle":
            return self._handle
        return (PinnedCarrier if found.stays else TcpCarrier)(self._links, found.digest)

    def _schedule(self, lane: Lane) -> Scheduler:
        # It waits for sessions that are expected back, as in front of a policy. Without that the first that comes back
        # goes alone, and the others wait behind it: half of the answers a second that a policy's own process gives.
        batcher = Batcher(_MOST_IN_GROUP, self._queue[0], self._wanted.settings.max_wait_s, self._queue[1])
        return Scheduler(lane, batcher, self._request_timeout_s, self._observers, why_late=lane.why_late)

    def _note_other_spec(self) -> None:
        self._asks_spec = True
        self._watch.soon()

    def _look(self, found: Sequence[cluster.Deployed]) -> bool:
        """Follow the number of replicas, and a version with another spec, once none of the version before is there."""
        assert self._lanes is not None
        ours = {one.name: one for one in found}.get(self.application)
        self._note(ours)
        if self._asks_spec and self._following is None and ours is not None and ours.state == "RUNNING":
            self._asks_spec = False
            self._following = asyncio.get_running_loop().create_task(self._follow_spec())
        return self._asks_spec or not self._lanes.edge.is_up.is_set()

    def _note(self, found: cluster.Deployed | None) -> None:
        assert self._lanes is not None
        self._before = [lanes for lanes in self._before if lanes.router.load]
        if found is None:  # it was removed, and may be deployed again
            found = cluster.Deployed(self.application, "", "", 0, 0)
        elif not found.wanted:
            return
        if bool(found.running) != self._lanes.edge.is_up.is_set():
            text = "replicas of %s are there again" if found.running else "no replica of %s is there"
            log.warning(text, found.name)
        if found.running != self._running:
            self._links.look_soon()
        self._running = found.running
        for lanes in self._all:
            lanes.set_up(found.running > 0)
        count = lane_count(found.running, self._wanted.config, self._lanes.edge.work_s)
        self._lanes.grow_to(max(count, found.running) if self._lanes.edge.stays else count)

    async def _follow_spec(self) -> None:
        try:
            self._take(await self._handle.describe(_DESCRIBE_S))
        except Exception as error:  # the replica's, or the cluster's: it is asked again where another one says so
            log.debug("no replica of %s says what it serves: %s", self.application, error)
        finally:
            self._following = None

    def _take(self, found: Described) -> None:
        """Have new sessions told the spec that replicas serve now; those of the one before are ended."""
        assert self._lanes is not None
        if found.digest == self._lanes.edge.digest:
            return
        try:
            _check_carrier(found, self._wanted.config)
            self.on_change(Change(found.spec, NotReady("another version of the policy took over: connect again")))
        except PolicyserveError as error:
            log.error("a version that cannot be served is on the cluster: %s", error)
            return
        self._lanes.edge.is_replaced = True
        self._before.append(self._lanes)
        self._lanes = self._open(found)


class _Lanes:
    """The lanes of one spec, and the router in front of them."""

    def __init__(self, carrier: Callable[[], Carrier], edge: Edge, schedule: Callable[[Lane], Scheduler]) -> None:
        self.edge = edge
        self.lanes: list[tuple[Lane, Scheduler]] = []
        self._leaving: list[Lane] = []
        self._carrier = carrier
        self._schedule = schedule
        first = self._make()
        self.router = Router([first], state_travels=not edge.stays)

    def grow_to(self, count: int) -> None:
        """Have so many lanes. One that leads to sessions which a replica keeps stays."""
        while len(self.lanes) < count:
            self.router.add(self._make())
        while len(self.lanes) > count and not self.edge.stays:
            lane, scheduler = self.lanes.pop()
            self.router.remove(scheduler)
            self._leaving = [*self._leaving[-count:], lane]

    def set_up(self, is_up: bool) -> None:
        """Whether there is a replica."""
        if is_up:
            self.edge.is_up.set()
        else:
            self.edge.is_up.clear()

    def end(self) -> None:
        """Give up what is under way."""
        for lane in [*self._leaving, *(lane for lane, _ in self.lanes)]:
            lane.end()

    def _make(self) -> Scheduler:
        lane = Lane(self._carrier(), self.edge)
        scheduler = self._schedule(lane)
        self.lanes.append((lane, scheduler))
        return scheduler


def _check_carrier(found: Described, config: ClusterConfig) -> None:
    """Raise ConfigError for a policy whose sessions a carrier cannot bring to their replicas."""
    if found.stays and config.carrier != "tcp":
        told = "sessions stay with their replicas (--session-state stays), which Serve's handle cannot choose"
        raise ConfigError(f"carrier: {told}: expected tcp, got {config.carrier}")


def _take_signals_back() -> None:
    """Have signals call who was to be called: Ray's library takes SIGTERM for itself, and ends the process by it."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        if handler is not None:
            signal.signal(number, handler)
            signal.siginterrupt(number, False)
