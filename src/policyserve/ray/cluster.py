"""The cluster as commands and edges see it: connecting, and what is deployed there. All calls wait for Ray.

Serve's declarative interface is what a config file of `serve deploy` goes through. By it alone the number of replicas
changes without replacing those that are there.
"""

# The environment of our own checks has no ray:
# pyright: reportMissingImports=false
from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from policyserve.core.errors import ConfigError, MissingDependency, PolicyFailed
from policyserve.core.recipe import Recipe
from policyserve.ray.application import REPLICA, described
from policyserve.ray.config import ClusterConfig, ReplicaSettings

_POLL_S = 0.2
_LOADED_S = 3600.0  # a policy of many gigabytes takes its time


@dataclass(frozen=True)
class Deployed:
    """A policy on the cluster. state: Serve's word (RUNNING, DEPLOYING, …).

    running, wanted: replicas; wanted is 0 while Serve looks at what was asked of it.
    """

    name: str
    version: str
    state: str
    running: int
    wanted: int
    message: str = ""


def check_installed() -> None:
    """Raise MissingDependency without the extra `ray`."""
    try:
        import_module("ray.serve")
    except ImportError as error:
        raise MissingDependency("ray[serve]", "ray") from error


def connect(config: ClusterConfig) -> None:
    """Become a driver of the cluster; raises ConfigError if it is not there, or lets in everybody off this machine."""
    check_installed()
    import ray

    if not ray.is_initialized():
        try:
            ray.init(config.ray_address, configure_logging=False, log_to_driver=False, namespace="serve")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            told = f"no cluster at {config.ray_address}: {str(error).splitlines()[0]}"
            raise ConfigError(f"ray_address: {told}; `ray start --head` begins one on this machine") from error
    check_token([node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]], os.environ, config.insecure)


def check_token(addresses: list[str], environment: Mapping[str, str], insecure: bool) -> None:
    """Raise ConfigError if nodes are reached by a network and Ray asks nobody for a token."""
    open_ones = [one for one in addresses if not ip_address(one).is_loopback]
    if open_ones and not insecure and environment.get("RAY_AUTH_MODE") != "token":
        told = f"whoever reaches {open_ones[0]} runs code on this cluster: expected token authentication, got none"
        cure = "set RAY_AUTH_MODE=token for `ray start` on all nodes and here (`ray get-auth-token --generate`)"
        raise ConfigError(f"ray: {told}; {cure}, or say --insecure where nobody else reaches that network")


def shut_down() -> None:
    """End what this process has of the cluster: all of it, if it began it (`local`)."""
    import ray

    ray.shutdown()


def deploy(name: str, recipe: Recipe, config: ClusterConfig, told: ReplicaSettings) -> None:
    """Deploy a policy, or its next version where one of that name is there; does not wait for it."""
    before = _applications().get(name)
    version = "1" if before is None else _next(before["args"].get("version", "0"))
    _apply({**_applications(), name: described(name, recipe, version, config, told)})


def scale(name: str, min_replicas: int, max_replicas: int) -> None:
    """Change the number of a policy's replicas; those that stay are not touched. Raises ConfigError without it."""
    applications = _applications()
    changed = dict(_known(name, applications))
    (deployment,) = changed["deployments"]
    scaled = dict(deployment)
    if min_replicas == max_replicas:
        scaled.pop("autoscaling_config", None)
        scaled["num_replicas"] = min_replicas
    else:
        scaled.pop("num_replicas", None)
        bounds = {"min_replicas": min_replicas, "max_replicas": max_replicas}
        scaled["autoscaling_config"] = {**(deployment.get("autoscaling_config") or {}), **bounds}
    _apply({**applications, name: {**changed, "deployments": [scaled]}})


def roll(name: str, recipe: Recipe | None, told: ReplicaSettings | None = None) -> str:
    """Replace a policy's version, replica by replica, by what `recipe` loads; None: the same anew. Its version."""
    applications = _applications()
    changed = dict(_known(name, applications))
    arguments = dict(changed["args"])
    arguments["version"] = version = _next(arguments.get("version", "0"))
    if recipe is not None:
        from policyserve.ray.application import write_recipe

        arguments["recipe"] = write_recipe(recipe)
    _apply({**applications, name: {**changed, "args": arguments}})
    return version


def remove(name: str) -> None:
    """Stop a policy's replicas; raises ConfigError without it."""
    applications = _applications()
    _known(name, applications)
    _apply({other: one for other, one in applications.items() if other != name})


def status() -> list[Deployed]:
    """The policies that are there."""
    from ray import serve

    found, applications = serve.status().applications, _applications()
    return [_deployed(name, found[name], one) for name, one in applications.items() if name in found]


def wait_until_running(name: str, on_stage: Callable[[str], None], timeout_s: float = _LOADED_S) -> None:
    """Wait until a replica answers; raises PolicyFailed if the deployment failed or takes longer than timeout_s."""
    until = time.monotonic() + timeout_s
    told = ""
    while time.monotonic() < until:
        found = {one.name: one for one in status()}.get(name)
        if found is not None and found.running and found.state in ("RUNNING", "DEPLOYING"):
            return
        if found is not None and found.state == "DEPLOY_FAILED":
            raise PolicyFailed(f"{name} could not be deployed: {found.message}")
        stage = "waiting for the cluster" if found is None else f"{found.running} of {found.wanted} replicas"
        if stage != told:
            told = stage
            on_stage(stage)
        time.sleep(_POLL_S)
    raise PolicyFailed(f"{name} was not there after {timeout_s:g} s; `policyserve cluster status` says how far it is")


def handle_of(name: str) -> Any:
    """The handle of a policy's replicas."""
    from ray import serve

    return serve.get_deployment_handle(REPLICA, name)


def _deployed(name: str, found: Any, application: Mapping[str, Any]) -> Deployed:
    version, state = str(application.get("args", {}).get("version", "1")), str(found.status.value)
    deployment = found.deployments.get(REPLICA)
    if deployment is None:  # Serve looks at what was asked of it
        return Deployed(name, version, state, 0, 0, found.message)
    states = {str(getattr(state, "value", state)): count for state, count in deployment.replica_states.items()}
    wanted = sum(count for state, count in states.items() if state != "STOPPING")
    message = " ".join(filter(None, (found.message, deployment.message)))
    return Deployed(name, version, state, states.get("RUNNING", 0), wanted, message)


def _known(name: str, applications: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if name not in applications:
        there = ", ".join(applications) or "none"
        raise ConfigError(f"name: expected a policy that is deployed, got {name!r}; there are {there}")
    return applications[name]


def _next(version: Any) -> str:
    return str(int(version) + 1) if str(version).isdigit() else f"{version}+1"


def _applications() -> dict[str, dict[str, Any]]:
    """What was deployed declaratively, by name."""
    import ray

    client = _client()
    configs = ray.get(client._controller.get_app_configs.remote())
    return {name: one.model_dump(exclude_unset=True) for name, one in configs.items()}


def _apply(applications: Mapping[str, dict[str, Any]]) -> None:
    """Have exactly these applications; others of the same interface are removed, so all have to be among them."""
    from ray.serve.schema import ServeDeploySchema

    _client().deploy_apps(ServeDeploySchema(applications=list(applications.values())))


def _client() -> Any:
    """Serve's own client, started where it is not there: without HTTP, since our edges face the clients."""
    from ray import serve
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        serve.start(proxy_location="Disabled")
        client = _get_global_client()
    return client
