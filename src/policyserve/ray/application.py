"""A policy as an application of Ray Serve: what `serve run policyserve.ray:app` and Serve's config files name.

What makes a version (the recipe and what replicas are told) stands in the application's arguments; how many replicas
there are does not, so that scaling replaces none.
"""

# The environment of our own checks has no ray:
# pyright: reportMissingImports=false
from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.core.memory import keep_freed
from policyserve.core.recipe import Recipe
from policyserve.engine.answering import LoadPolicy
from policyserve.engine.isolated.codec import pack, unpack
from policyserve.policies import registry
from policyserve.ray import roster
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from policyserve.ray.listener import Listener
from policyserve.ray.own_loop import OwnLoop
from policyserve.ray.replica import Replica
from policyserve.ray.scaling import GROUPS, by_groups

REPLICA = "Replica"  # what Serve calls the deployment
_MOST_CALLS = 1_000  # in one replica: more than the lanes of all edges, since a call that is turned away waits
_OWN = ("policy", "recipe", "version", "replica", "directory")


def app(arguments: dict[str, Any]) -> Any:
    """Make the application: `serve run policyserve.ray:app policy=cartpole_ppo num_gpus=0`.

    arguments: `policy`, what `policyserve serve` takes, with its default flags; or `recipe`, by write_recipe();
    `version`; and fields of ClusterConfig. Raises ConfigError for a policy that is not known and for wrong arguments.
    """
    from ray import serve

    config, rest = _read_config(arguments)
    recipe = _read_recipe(rest)
    own = {"max_state_kib": config.max_state_kib, "session_state": config.session_state}
    told = dict(rest.get("replica") or own)
    deployment = serve.deployment(_Served, name=REPLICA, **options(config))
    return deployment.bind(pack(recipe), str(rest.get("version", "1")), told, str(rest.get("directory", "")))


class _Served:
    """A Replica as Serve makes one. It lives in an event loop of its own."""

    async def __init__(  # type: ignore[misc]
        self, recipe: bytes, version: str, settings: Mapping[str, Any], directory: str
    ) -> None:
        _go_to(directory)
        keep_freed()
        load: LoadPolicy = unpack(recipe, trusted=True)
        self._loop = OwnLoop("replica")
        self._replica = Replica(load, version, ReplicaSettings(**settings))
        await self._loop.run(self._replica.start())
        self._listener = await self._loop.run(_listen(self._replica))

    async def describe(self) -> bytes:
        return await self._loop.run(self._replica.describe())

    async def infer(self, message: bytes, arrays: Any) -> Any:
        return await self._loop.run(self._replica.infer(message, arrays))

    async def check_health(self) -> None:
        await self._loop.run(self._replica.check_health())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What scaling.by_groups() is told."""
        return {GROUPS: float(self._replica.load)}

    async def __del__(self) -> None:
        """What Serve calls before it ends a replica, once no call by its handle is under way."""
        if hasattr(self, "_listener"):  # it may not have got so far
            await self._loop.run(self._listener.drain())

    async def __call__(self, request: Any) -> str:
        return "policyserve's replicas answer its edges alone: policyserve serve POLICY --engine ray\n"


async def _listen(replica: Replica) -> Listener:
    """Have edges reach a replica without Ray, and tell them where."""
    from ray import serve

    secret, host = os.urandom(roster.SECRET_BYTES), roster.own_address()
    listener = Listener(replica.answer, replica.digest, secret)
    roster.tell(serve.get_replica_context().app_name, host, await listener.open(host), secret)
    return listener


def _go_to(directory: str) -> None:
    """Have paths and modules of a recipe be as whoever deployed it has them, where this node has that folder."""
    with suppress(OSError):
        os.chdir(directory or ".")


def write_recipe(recipe: Recipe) -> str:
    """A recipe as a text for `app`'s arguments; raises TypeError if its arguments cannot travel."""
    return b64encode(pack(recipe)).decode()


def options(config: ClusterConfig) -> dict[str, Any]:
    """What Serve is told of the deployment, in its own words."""
    scaled: dict[str, Any] = {"num_replicas": config.min_replicas}
    if config.max_replicas > config.min_replicas:
        scaled = {
            "autoscaling_config": {
                "min_replicas": config.min_replicas,
                "initial_replicas": config.min_replicas,
                "max_replicas": config.max_replicas,
                "target_ongoing_requests": config.target_groups,
                "policy": {"policy_function": f"{by_groups.__module__}:{by_groups.__name__}"},
                "upscale_delay_s": config.upscale_delay_s,
                "downscale_delay_s": config.downscale_delay_s,
            }
        }
    return {
        **scaled,
        "ray_actor_options": {"num_gpus": config.num_gpus, "num_cpus": config.num_cpus},
        "max_ongoing_requests": _MOST_CALLS,
        "max_surge_percent": config.surge_percent,
        "health_check_period_s": config.health_period_s,
        "health_check_timeout_s": config.health_timeout_s,
        "graceful_shutdown_timeout_s": config.replica_drain_s,
        "graceful_shutdown_wait_loop_s": 0.5,
    }


def described(name: str, recipe: Recipe, version: str, config: ClusterConfig, told: ReplicaSettings) -> dict[str, Any]:
    """The application for Serve's declarative interface, as one of `applications` in its config file."""
    return {
        "name": name,
        "route_prefix": None,
        "import_path": "policyserve.ray:app",
        "args": {
            "recipe": write_recipe(recipe),
            "version": version,
            "replica": asdict(told),
            "directory": os.getcwd(),
        },
        "deployments": [{"name": REPLICA, **options(config)}],
    }


def _read_config(arguments: Mapping[str, Any]) -> tuple[ClusterConfig, dict[str, Any]]:
    kinds = {one.name: one.type for one in fields(ClusterConfig)}
    unknown = [name for name in arguments if name not in kinds and name not in _OWN]
    if unknown:
        raise ConfigError(f"{unknown[0]}: expected {', '.join((*_OWN, *kinds))}")
    given = {name: _number(value, str(kinds[name])) for name, value in arguments.items() if name in kinds}
    return ClusterConfig(**given), {name: value for name, value in arguments.items() if name in _OWN}


def _number(value: Any, kind: str) -> Any:
    """What `serve run` gives as a text, as the number that it stands for."""
    if not isinstance(value, str) or kind == "str":
        return value
    if kind == "bool":
        return value.lower() in ("1", "true")
    try:
        return int(value) if kind == "int" else float(value)
    except ValueError:
        return value  # its check says what is expected


def _read_recipe(arguments: Mapping[str, Any]) -> Recipe:
    if "recipe" in arguments:
        return unpack(b64decode(arguments["recipe"]), trusted=True)
    if "policy" not in arguments:
        raise ConfigError("policy: expected what `policyserve serve` takes, such as policy=cartpole_ppo")
    adapter = registry.find(arguments["policy"])
    return adapter.source(adapter.defaults(None)).recipe
