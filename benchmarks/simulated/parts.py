"""What a simulated cluster is made of: its shape, requests, groups on their way, lanes, edges, replicas."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from policyserve.ray.config import ClusterConfig
from policyserve.ray.lane import usual
from policyserve.ray.lane_count import lane_count

from .events import Station


@dataclass(frozen=True)
class Shape:
    """What is simulated. every_s: from one request of a session to its next; 0: as soon as it is answered.

    max_lanes: of an edge; None: its own choice. cores: of the one machine that everything shares; None: each edge
    and each replica has its own.
    """

    replicas: int
    sessions: int
    edges: int = 1
    every_s: float = 1.0
    seconds: float = 10.0
    batch_s: float = 0.02
    max_batch: int = 16
    request_bytes: int = 100
    lanes_per_replica: int = 2
    max_lanes: int | None = None
    cores: float | None = None

    @property
    def config(self) -> ClusterConfig:
        """What decides how many lanes each edge has."""
        return ClusterConfig(carrier="handle", lanes_per_replica=self.lanes_per_replica, max_lanes=self.max_lanes)


class Request:
    """One request. call: the group that it went with; is_over: answered or lost; is_hit: a fault delayed it."""

    __slots__ = ("asked_at", "call", "is_hit", "is_over", "session")

    def __init__(self, session: int, asked_at: float) -> None:
        self.session = session
        self.asked_at = asked_at
        self.call: Call | None = None
        self.is_over = self.is_hit = False


class Call:
    """A group on its way. left: requests without an answer; tries: how often it was sent; is_hit: a fault met it.

    began_at: when a replica's first batch with one of its requests began; None: none has.
    """

    __slots__ = ("began_at", "is_hit", "lane", "left", "replica", "requests", "tries")

    def __init__(self, lane: Lane, requests: list[Request]) -> None:
        self.lane = lane
        self.requests = requests
        self.left = len(requests)
        self.tries = 0
        self.is_hit = False
        self.began_at: float | None = None
        self.replica: Replica | None = None


class Lane:
    """One group after the other. load: requests that wait or are on their way."""

    __slots__ = ("edge", "is_busy", "load", "number", "waiting")

    def __init__(self, edge: Edge, number: int) -> None:
        self.edge = edge
        self.number = number  # of the edge's
        self.is_busy = False
        self.load = 0
        self.waiting: list[Request] = []


class Edge:
    """An event loop and its lanes, which are made as they are needed; their number follows how long replicas work."""

    def __init__(self, shape: Shape) -> None:
        self.loop = Station()
        self.lanes: list[Lane] = []
        self.is_alive = True
        self._replicas, self._config = shape.replicas, shape.config
        self._work_s: float | None = None

    @property
    def room(self) -> int:
        """Lanes that it may have."""
        return lane_count(self._replicas, self._config, self._work_s)

    def least_loaded(self) -> Lane:
        """The lane with the fewest requests."""
        room = self.room
        found = min(self.lanes[:room], key=lambda lane: lane.load, default=None)
        if found is None or (found.load and len(self.lanes) < room):
            self.lanes.append(Lane(self, len(self.lanes)))
            return self.lanes[-1]
        return found

    def note_work(self, took_s: float) -> None:
        """A replica has worked so long at a group."""
        self._work_s = usual(self._work_s, took_s)


class Replica:
    """An event loop, and a policy that takes batches of what waits. calls: that are here or on their way to it."""

    def __init__(self) -> None:
        self.loop = Station()
        self.calls: dict[Call, None] = {}
        self.waiting: deque[Request] = deque()
        self.is_working = False
        self.is_alive = True
        self.is_frozen = False
        self.life = 0
        self.batches = 0
