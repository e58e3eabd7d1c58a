"""What a user can say of a policy on a cluster. Pure; nothing here needs ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from policyserve.core.settings import Settings
from policyserve.ray.carrying import DEFAULT_MAX_STATE_KIB


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(Settings):
    """A policy's replicas on a cluster, and an edge's way to them. Raises ConfigError that names the field."""

    group: ClassVar[str] = "cluster"

    deployed_as: str = "policy"
    """What the policy is called on the cluster: edges of one name share its replicas."""
    ray_address: str = "auto"
    """The cluster: auto is the one that this machine belongs to, local a new one of this machine, else HOST:PORT."""
    num_gpus: float = 1.0
    """GPUs of each replica; a fraction shares one, and nothing but the framework's own limit holds its memory."""
    num_cpus: float = 1.0
    """Cores that are set aside for each replica."""
    min_replicas: int = 1
    """The fewest replicas."""
    max_replicas: int = 1
    """The most replicas; between the two their number follows the load."""
    target_groups: float = 1.0
    """Groups of requests in each replica, on average, that the number of replicas aims at."""
    upscale_delay_s: float = 5.0
    """How long there is more load before a replica is added."""
    downscale_delay_s: float = 300.0
    """How long there is less load before a replica is stopped."""
    carrier: Literal["tcp", "handle"] = "tcp"
    """How an edge reaches replicas: tcp is a connection of its own to each, handle goes through Ray."""
    lanes_per_replica: int = 2
    """Groups on their way to each replica: one in work, one behind it."""
    max_lanes: int | None = None
    """Groups on their way from one edge, at most; None: as many as it has time for, by how long replicas take."""
    call_timeout_s: float | None = None
    """A group without an answer for so long is sent to another replica; None: 8 times the usual, 2 s at least."""
    max_tries: int = 3
    """How many replicas one group may be lost with, since it may be the reason; twice as many may time out."""
    session_state: Literal["travels", "stays"] = "travels"
    """Where what a policy remembers of a session is: it travels with the requests, or stays with one replica."""
    max_state_kib: float = DEFAULT_MAX_STATE_KIB
    """The most of what a policy remembers of one session, where it travels with each of its requests."""
    surge_percent: int = 100
    """Of the replicas, how many more may load while a version is rolled out; 0 stops an old one before that."""
    health_period_s: float = 2.0
    """The time between two looks at a replica's health."""
    health_timeout_s: float = 10.0
    """A replica that does not answer such a look for so long, three times, is replaced."""
    replica_drain_s: float = 10.0
    """How long a replica that is stopped may answer what it has."""
    insecure: bool = False
    """Use a cluster whose nodes let in everybody who reaches their ports, and run what they send."""

    def check(self) -> None:
        """Raise ConfigError for what is out of its bounds."""
        super().check()
        is_plain = self.deployed_as.replace("-", "").replace("_", "").isalnum()
        self.require("deployed_as", is_plain, "letters, digits, - and _")
        self.require("carrier", self.carrier in ("tcp", "handle"), "tcp or handle")
        self.require("session_state", self.session_state in ("travels", "stays"), "travels or stays")
        is_choosing = self.session_state == "travels" or self.carrier == "tcp"
        self.require("carrier", is_choosing, "tcp, where session_state stays: Serve's handle cannot choose a replica")
        self.require("ray_address", self.ray_address != "", "auto, local or HOST:PORT")
        for name in ("num_gpus", "num_cpus", "upscale_delay_s", "downscale_delay_s", "replica_drain_s"):
            self.require(name, 0 <= getattr(self, name) <= 1e6, "0 or more")
        for name in ("min_replicas", "lanes_per_replica", "max_tries"):
            self.require(name, 1 <= getattr(self, name) <= 10_000, "1 or more")
        self.require("max_lanes", self.max_lanes is None or 1 <= self.max_lanes <= 10_000, "1 or more")
        self.require("max_replicas", self.max_replicas >= self.min_replicas, f"{self.min_replicas} or more")
        for name in ("target_groups", "max_state_kib", "health_period_s", "health_timeout_s"):
            self.require(name, 0 < getattr(self, name) <= 1e6, "more than 0")
        self.require("call_timeout_s", self.call_timeout_s is None or self.call_timeout_s > 0, "more than 0")
        self.require("surge_percent", 0 <= self.surge_percent <= 100, "0 … 100")


@dataclass(frozen=True)
class ReplicaSettings:
    """What each replica is told. Plain values: they travel as JSON."""

    request_timeout_s: float = 120.0
    max_queue: int = 4096
    max_queue_ms: float = 250.0
    max_wait_ms: float | None = None
    max_state_kib: float = DEFAULT_MAX_STATE_KIB
    session_state: str = "travels"

    @property
    def stays(self) -> bool:
        """Whether what the policy remembers of a session stays with one replica."""
        return self.session_state == "stays"

    @property
    def max_wait_s(self) -> float | None:
        """max_wait_ms in seconds."""
        return None if self.max_wait_ms is None else self.max_wait_ms / 1e3
