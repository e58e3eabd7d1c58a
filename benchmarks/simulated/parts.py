"""What a simulated cluster is made of: its shape, requests, groups on their way, lanes, edges, replicas."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from .events import Station


@dataclass(frozen=True)
class Shape:
    """What is simulated. every_s: from one request of a session to its next; 0: as soon as it is answered.

    most_lanes: of an edge, which policyserve does not bound. cores: of the one machine that everything shares; None:
    each edge and each replica has its own.
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
    most_lanes: int = 1_000_000
    cores: float | None = None

    @property
    def lanes(self) -> int:
        """Of each edge."""
        return min(self.lanes_per_replica * self.replicas, self.most_lanes)


class Request:
    """One request. call: the group that it went with; is_over: answered or lost; is_hit: a fault delayed it."""

    __slots__ = ("asked_at", "call", "is_hit", "is_over", "session")

    def __init__(self, session: int, asked_at: float) -> None:
        self.session = session
        self.asked_at = asked_at
        self.call: Call | None = None
        self.is_over = self.is_hit = False


class Call:
    """A group on its way. left: requests without an answer; tries: how often it was sent; is_hit: a fault met it."""

    __slots__ = ("is_hit", "lane", "left", "replica", "requests", "tries")

    def __init__(self, lane: Lane, requests: list[Request]) -> None:
        self.lane = lane
        self.requests = requests
        self.left = len(requests)
        self.tries = 0
        self.is_hit = False
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
    """An event loop and its lanes, which are made as they are needed: a thousand edges would have millions."""

    def __init__(self, most_lanes: int) -> None:
        self.loop = Station()
        self.lanes: list[Lane] = []
        self.is_alive = True
        self._most_lanes = most_lanes
        self._by_load: list[tuple[int, int]] = []  # a heap of loads and numbers, some of which are no longer so

    def least_loaded(self) -> Lane:
        """The lane with the fewest requests."""
        while self._by_load and self.lanes[self._by_load[0][1]].load != self._by_load[0][0]:
            heapq.heappop(self._by_load)
        if len(self.lanes) < self._most_lanes and (not self._by_load or self._by_load[0][0]):
            self.lanes.append(Lane(self, len(self.lanes)))
            return self.lanes[-1]
        return self.lanes[self._by_load[0][1]]

    def load(self, lane: Lane, more: int) -> None:
        """A lane has more requests, or fewer."""
        lane.load += more
        heapq.heappush(self._by_load, (lane.load, lane.number))


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
