"""A policy of `policyserve serve` whose requests go to a cluster: its flags, and the engine that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from policyserve.core.errors import ConfigError
from policyserve.core.recipe import Recipe
from policyserve.engine.engine import Engine
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from policyserve.server.config import ServerConfig

if TYPE_CHECKING:
    from policyserve.ray.asking import Watch

OF_THE_SERVER = ("ray_address", "insecure")  # a server is of one cluster, with all its policies


@dataclass(frozen=True, kw_only=True)
class EdgeFlags(ClusterConfig):
    """Whether the policy is on a cluster, and how."""

    usual: ClassVar[tuple[str, ...]] = ()  # --help-all lists them

    engine: Literal["local", "ray"] = "local"
    """Where the policy runs: on this machine, or on a cluster of Ray, with the clients served here (extra `ray`)."""


class Edges:
    """Makes the engines of one server whose policies are on a cluster: together they ask how that is."""

    def __init__(self) -> None:
        self._watch: Watch | None = None

    def make(self, recipe: Recipe, flags: EdgeFlags, server: ServerConfig) -> Engine:
        """An engine whose policy is on a cluster, where it is deployed if it is not there.

        Raises ConfigError for flags of a policy on this machine, MissingDependency without the extra `ray`.
        """
        from policyserve.ray.asking import Watch
        from policyserve.ray.cluster import check_installed
        from policyserve.ray.edge import RayEngine
        from policyserve.ray.engine import Wanted

        if server.isolate != "thread" or server.replicas != 1:
            raise ConfigError("--engine ray: expected --min-replicas and --max-replicas, got --isolate or --replicas")
        check_installed()
        self._watch = self._watch or Watch()
        batching = server.max_queue, server.max_queue_ms, server.max_wait_ms
        settings = ReplicaSettings(server.request_timeout_s, *batching, flags.max_state_kib, flags.session_state)
        bounds = server.max_queue, server.max_queue_s, server.request_timeout_s
        return RayEngine(Wanted(flags, settings, recipe), *bounds, self._watch)


def check_deployed_apart(deployed: Mapping[str, EdgeFlags]) -> None:
    """Raise ConfigError if two policies of a server are one on the cluster. deployed: their flags, by their names."""
    names: dict[str, str] = {}
    for name, flags in deployed.items():
        if flags.engine == "local":
            continue
        other = names.setdefault(flags.deployed_as, name)
        if other != name:
            told = f"{other} is deployed as {flags.deployed_as!r} as well: give one another"
            raise ConfigError(f"policies.{name}.deployed-as: {told}")
