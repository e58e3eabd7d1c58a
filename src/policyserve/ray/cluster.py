"""The cluster as commands and edges see it: connecting, and what is deployed there. All calls wait for Ray.

Serve's declarative interface is what a config file of `serve deploy` goes through. By it alone the number of replicas
changes without replacing those that are there.
"""

# The environment of our own checks has no ray:
# pyright: reportMissingImports=false
from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from ipaddress import ip_address
from typing import Any, ParamSpec, TypeVar

from policyserve.core.errors import ConfigError, MissingDependency, PolicyFailed
from policyserve.core.printable import one_line
from policyserve.core.recipe import Recipe
from policyserve.ray.application import REPLICA, described, options, write_recipe
from policyserve.ray.config import ClusterConfig, ReplicaSettings

_POLL_S = 0.2
_KNOCK_S = 5.0
_A_CALL = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # of GCS; any would do
_MOST_TOLD = 500  # characters of what Serve says
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LOADED_S = 3600.0  # a policy of many gigabytes takes its time

P = ParamSpec("P")
T = TypeVar("T")

_alone = threading.RLock()


def _one_at_a_time(function: Callable[P, T]) -> Callable[P, T]:
    """Have one thread at a time do it: what is deployed is read and written whole, by several policies at once."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        with _alone:
            return function(*args, **kwargs)

    return alone


@dataclass(frozen=True)
class Deployed:
    """A policy on the cluster. state: Serve's word (RUNNING, DEPLOYING, …).

    running, wanted: replicas; wanted is 0 while Serve looks at what was asked of it. recipe: as write_recipe() has it;
    empty where nobody says it.
    """

    name: str
    version: str
    state: str
    running: int
    wanted: int
    message: str = ""
    recipe: str = ""


def check_installed() -> None:
    """Raise MissingDependency without the extra `ray`."""
    try:
        import_module("ray.serve")
    except ImportError as error:
        raise MissingDependency("ray[serve]", "ray") from error


@_one_at_a_time
def connect(config: ClusterConfig) -> None:
    """Become a driver of the cluster.

    Raises ConfigError if it is not there, takes another token, or lets in everybody off this machine.
    """
    check_installed()
    import ray

    if not ray.is_initialized():
        place = place_of(config.ray_address, os.environ)
        logging.getLogger("ray._private.worker").setLevel(logging.ERROR)  # it warns that this is not the main thread
        try:
            knock(place)
            ray.init(config.ray_address, configure_logging=False, log_to_driver=False, namespace="serve")
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise ConfigError(refusal(place, error, os.environ)) from error
    addresses = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    asks = asks_for_token(ray.get_runtime_context().gcs_address)
    check_token(addresses, os.environ.get("RAY_AUTH_MODE") == "token" if asks is None else asks, config.insecure)


def place_of(address: str, environment: Mapping[str, str]) -> str:
    """HOST:PORT of the cluster that is meant; empty where Ray looks for one on this machine, or begins it."""
    named = environment.get("RAY_ADDRESS", "") if address == "auto" else address
    return "" if named in ("auto", "local") else named


def knock(place: str) -> None:
    """Raise OSError where nobody listens, Ray's AuthenticationError where our token is another one.

    Ray finds both out as well, but only after twenty tries of a second or two, each with a line of its own.
    """
    host, _, port = place.rpartition(":")
    if not host or "://" in place or not port.isdigit():
        return
    socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient

    ensure_token_if_auth_enabled(create_token_if_missing=False)  # the client ends the process where there is none
    GcsClient(address=place)


def refusal(place: str, error: BaseException, environment: Mapping[str, str]) -> str:
    """What to say of a cluster that Ray could not connect to, and why. place: empty: one of this machine."""
    told = f"{error} {error.__cause__ or ''}"
    if "AuthToken" in told or "authentication token" in told:
        mode = environment.get("RAY_AUTH_MODE")
        got = "another token" if mode == "token" else f"RAY_AUTH_MODE={mode}" if mode else "RAY_AUTH_MODE not set"
        got = "none" if "no authentication token" in told else got
        cure = "RAY_AUTH_MODE=token here, and its nodes' token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
        return f"ray: the cluster{' at ' + place if place else ''} asks for a token: expected {cure}, got {got}"
    if not place:
        cure = "`ray start --head` begins one, `ray start --address HOST:PORT` joins one"
        return f"--ray-address: expected a cluster at this machine, got none: {cure}"
    why = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return f"--ray-address: no cluster at {place} ({why}): expected the address that `ray start --head` told"


def asks_for_token(place: str) -> bool | None:
    """Whether the cluster's GCS refuses one who has no token; None where it does not say, since it wants TLS.

    What is set here says nothing of the nodes: a driver with a token is let in as well where nobody is asked for one.
    """
    import grpc

    with grpc.insecure_channel(place, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_A_CALL)(b"", timeout=_KNOCK_S)
        except grpc.RpcError as error:
            return True if error.code() == grpc.StatusCode.UNAUTHENTICATED else None
    return False


def check_token(addresses: list[str], asks: bool, insecure: bool) -> None:
    """Raise ConfigError if nodes are reached by a network and Ray asks nobody for a token."""
    open_ones = [one for one in addresses if not ip_address(one).is_loopback]
    if open_ones and not insecure and not asks:
        told = f"whoever reaches {open_ones[0]} runs code on this cluster: expected token authentication, got none"
        cure = "set RAY_AUTH_MODE=token for `ray start` on all nodes and here (`ray get-auth-token --generate`)"
        raise ConfigError(f"ray: {told}; {cure}, or say --insecure where nobody else reaches that network")


def shut_down() -> None:
    """End what this process has of the cluster: all of it, if it began it (`local`)."""
    import ray

    ray.shutdown()


def newest(name: str, applications: Iterable[str]) -> str:
    """Of a policy's applications (NAME, NAME@2, …) the one that new sessions get; empty: there is none."""
    mine = [one for one in applications if one.partition("@")[0] == name]
    return max(mine, key=lambda one: int(one.partition("@")[2] or "0"), default="")


@_one_at_a_time
def deploy(name: str, recipe: Recipe, config: ClusterConfig, told: ReplicaSettings) -> str:
    """Deploy a policy, or its next version where one of that name is there; does not wait for it. Its application."""
    applications = _applications()
    application = newest(name, applications) or name
    before = applications.get(application)
    version = "1" if before is None else _next(before["args"].get("version", "0"))
    _apply({**applications, application: described(application, recipe, version, config, told)})
    return application


@_one_at_a_time
def scale(name: str, min_replicas: int, max_replicas: int) -> None:
    """Change the number of a policy's replicas; those that stay are not touched. Raises ConfigError without it."""
    applications = _applications()
    application = _known(name, applications)
    changed = dict(applications[application])
    (deployment,) = changed["deployments"]
    scaled = dict(deployment)
    if min_replicas == max_replicas:
        scaled.pop("autoscaling_config", None)
        scaled["num_replicas"] = min_replicas
    else:
        scaled.pop("num_replicas", None)
        rule = deployment.get("autoscaling_config") or options(ClusterConfig(max_replicas=2))["autoscaling_config"]
        kept = {name: value for name, value in rule.items() if name != "initial_replicas"}
        scaled["autoscaling_config"] = {**kept, "min_replicas": min_replicas, "max_replicas": max_replicas}
    _apply({**applications, application: {**changed, "deployments": [scaled]}})


@_one_at_a_time
def roll(name: str, recipe: Recipe | None, *, sessions_stay: bool = False) -> tuple[str, str]:
    """Have a next version of a policy, which `recipe` loads; None: the same anew. Its application, and the one before.

    It takes the place of the last one, replica by replica, and sessions move. sessions_stay: it is an application
    beside the last one, with as many replicas; sessions end where they began, until somebody removes that.
    """
    applications = _applications()
    before = _known(name, applications)
    arguments = dict(applications[before]["args"])
    arguments["version"] = version = _next(arguments.get("version", "0"))
    if recipe is not None:
        arguments["recipe"] = write_recipe(recipe)
    application = f"{name}@{version}" if sessions_stay else before
    changed = {**applications[before], "name": application, "args": arguments}
    _apply({**applications, application: changed})
    return application, before


@_one_at_a_time
def remove(name: str) -> None:
    """Stop a policy's replicas, those of all versions unless it names one (NAME@2); raises ConfigError without it."""
    applications = _applications()
    _known(name, applications)
    _apply({other: one for other, one in applications.items() if name not in (other, other.partition("@")[0])})


@_one_at_a_time
def remove_version(application: str) -> None:
    """Stop one version's replicas; one that is gone already is no error."""
    _apply({other: one for other, one in _applications().items() if other != application})


def status() -> list[Deployed]:
    """The policies that are there, those that `serve run` began among them."""
    from ray import serve

    found, applications = serve.status().applications, _applications()
    ours = {name: one for name, one in found.items() if name in applications or REPLICA in one.deployments}
    return [_deployed(name, one, applications.get(name, {})) for name, one in ours.items()]


def wait_until_running(
    name: str, on_stage: Callable[[str], None], timeout_s: float = _LOADED_S, leave: threading.Event | None = None
) -> None:
    """Wait until a replica answers; raises PolicyFailed if the deployment failed or takes longer than timeout_s.

    leave: once it is set, nobody waits any more.
    """
    until = time.monotonic() + timeout_s
    told = ""
    leave = leave or threading.Event()
    while time.monotonic() < until:
        found = {one.name: one for one in status()}.get(name)
        if found is not None and found.running and found.state in ("RUNNING", "DEPLOYING"):
            return
        if found is not None and found.state == "DEPLOY_FAILED":
            cure = f"`policyserve cluster roll {name}` tries again, with a POLICY behind it another one"
            raise PolicyFailed(f"{name} could not be deployed: {found.message}; {cure}")
        stage = "waiting for the cluster" if found is None else _stage_of(found)
        if stage != told:
            told = stage
            on_stage(stage)
        if leave.wait(_POLL_S):
            return
    raise PolicyFailed(f"{name} was not there after {timeout_s:g} s; `policyserve cluster status` says how far it is")


def handle_of(name: str) -> Any:
    """The handle of a policy's replicas."""
    from ray import serve

    return serve.get_deployment_handle(REPLICA, name)


def _stage_of(found: Deployed) -> str:
    """How far it is; Serve's own words where it waits for a GPU, say, that no node has."""
    told = f"{found.running} of {found.wanted} replicas" if found.wanted else "being looked at"
    return f"{told}: {found.message}" if found.message else told


def reason(message: str) -> str:
    """What Serve says of a deployment, on one line; of a traceback its last line, without our errors' own names."""
    lines = [line for line in _COLOURS.sub("", message).splitlines() if line.strip()]
    is_traceback = "Traceback (most recent call last)" in message
    told = lines[-1].removeprefix("policyserve.core.errors.ConfigError: ") if is_traceback else " ".join(lines)
    return one_line(told)[:_MOST_TOLD]


def _deployed(name: str, found: Any, application: Mapping[str, Any]) -> Deployed:
    arguments = application.get("args", {})
    version, state, recipe = str(arguments.get("version", "1")), str(found.status.value), arguments.get("recipe", "")
    deployment = found.deployments.get(REPLICA)
    if deployment is None:  # Serve looks at what was asked of it
        return Deployed(name, version, state, 0, 0, reason(found.message), recipe)
    states = {str(getattr(state, "value", state)): count for state, count in deployment.replica_states.items()}
    wanted = sum(count for state, count in states.items() if state != "STOPPING")
    message = "\n".join(filter(None, (found.message, deployment.message)))
    return Deployed(name, version, state, states.get("RUNNING", 0), wanted, reason(message), recipe)


def _known(name: str, applications: Mapping[str, dict[str, Any]]) -> str:
    found = name if name in applications and "@" in name else newest(name, applications)
    if not found:
        there = ", ".join(applications) or "none"
        raise ConfigError(f"name: expected a policy that is deployed, got {name!r}; there are {there}")
    return found


def _next(version: Any) -> str:
    return str(int(version) + 1) if str(version).isdigit() else f"{version}+1"


def _applications() -> dict[str, dict[str, Any]]:
    """What was deployed declaratively, by name; nothing where there is no Serve, which only deploying starts."""
    import ray
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return {}
    configs = ray.get(client._controller.get_app_configs.remote())
    return {name: one.model_dump(exclude_unset=True) for name, one in configs.items()}


def _apply(applications: Mapping[str, dict[str, Any]]) -> None:
    """Have exactly these applications; others of the same interface are removed, so all have to be among them."""
    from ray.serve.schema import ServeDeploySchema

    _client().deploy_apps(ServeDeploySchema(applications=list(applications.values())))


@_one_at_a_time
def _client() -> Any:
    """Serve's own client, started where it is not there: without HTTP, since our edges face the clients."""
    from ray import serve
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        serve.start(proxy_location="Disabled")
        client = _get_global_client()
    return client
