"""`policyserve cluster`: which policies a cluster has, in how many replicas, in which version."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, Literal, TypeVar

from tyro.conf import Positional, arg

from policyserve.cli.arguments import help_page
from policyserve.cli.arguments.flags import flags_of
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.policies import find_adapter, find_source, overview, read_flags, take_policy
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.policies.objects import NoFlags
from policyserve.ray import cluster
from policyserve.ray.config import ClusterConfig, ReplicaSettings

PROG = "policyserve cluster"
ACTIONS = {
    "deploy": "NAME POLICY: load a policy on nodes of the cluster; edges serve it",
    "roll": "NAME [POLICY]: replace it by a next version, which loads first",
    "scale": "NAME REPLICAS: have so many replicas",
    "status": "what is deployed, and how far it is",
    "remove": "NAME: stop it",
}
_LEAVE_S = 10.0  # to have an answer of a busy cluster

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class DeployFlags(Generic[PolicyFlagsT]):
    """Load a policy on nodes of a cluster; `policyserve serve POLICY --engine ray --deployed-as NAME` serves it."""

    policy: Annotated[PolicyFlagsT, arg(name="")]
    cluster: Annotated[ClusterConfig, arg(name="")] = field(default_factory=ClusterConfig)
    request_timeout_s: float = 120.0
    """From a request's arrival at a replica to its answer; a policy that takes longer is replaced."""
    wait: bool = True
    """Wait until a replica answers."""


@dataclass(frozen=True)
class RollFlags(Generic[PolicyFlagsT]):
    """Replace a policy's version; the next one loads before the last stops."""

    policy: Annotated[PolicyFlagsT, arg(name="")]
    sessions: Literal["move", "stay"] = "move"
    """move: sessions go over, in the middle of an episode. stay: they end where they began, on twice the nodes."""
    roll_patience_s: float = 600.0
    """With --sessions stay: after so long the version before is stopped, and this command ends."""
    ray_address: str = "auto"
    """The cluster: auto, or HOST:PORT."""
    insecure: bool = False
    """Use a cluster that lets in everybody who reaches its ports."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a patience that nobody has."""
        if not 0 < self.roll_patience_s <= 1e6:
            raise ConfigError(f"roll_patience_s: expected more than 0, got {self.roll_patience_s:g}")


@dataclass(frozen=True)
class ScaleFlags:
    """Change how many replicas a policy has; those that stay are not touched."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    replicas: Annotated[Positional[int], arg(metavar="REPLICAS")]
    max_replicas: int | None = None
    """Up to so many, by the load, REPLICAS being the fewest; None: always REPLICAS."""
    ray_address: str = "auto"
    """The cluster: auto, or HOST:PORT."""
    insecure: bool = False
    """Use a cluster that lets in everybody who reaches its ports."""

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers that no policy can have."""
        if self.replicas < 1:
            raise ConfigError(f"replicas: expected 1 or more, got {self.replicas}")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ConfigError(f"max_replicas: expected {self.replicas} or more, got {self.max_replicas}")


@dataclass(frozen=True)
class RemoveFlags:
    """Stop a policy's replicas; its edges go on waiting for a next deployment of that name."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    ray_address: str = "auto"
    """The cluster: auto, or HOST:PORT."""
    insecure: bool = False
    """Use a cluster that lets in everybody who reaches its ports."""


@dataclass(frozen=True)
class StatusFlags:
    """Say what is deployed, in which version, and how many replicas of it answer."""

    ray_address: str = "auto"
    """The cluster: auto, or HOST:PORT."""
    insecure: bool = False
    """Use a cluster that lets in everybody who reaches its ports."""


def main(argv: Sequence[str]) -> None:
    """Do what the arguments say; exits with 1 if the cluster cannot, with 2 for wrong arguments."""
    action = argv[0] if argv else "--help"
    if action in ("-h", "--help", "--help-all"):
        print(f"usage: {PROG} ACTION …\n")
        print("\n".join(f"  {name:8} {purpose}" for name, purpose in ACTIONS.items()))
        return
    if action not in ACTIONS:
        complain(f"expected {', '.join(ACTIONS)}, got {action!r} ({PROG} --help)", ARGUMENT_ERROR)
    try:
        _DO[action](list(argv[1:]))
    except PolicyserveError as error:
        complain(str(error), FAILURE)


def _deploy(argv: list[str]) -> None:
    prog = f"{PROG} deploy"
    name, target, words = _read_names(argv, prog, "NAME POLICY", DeployFlags(NoFlags()))
    if target is None:
        complain(f"expected a policy behind {name} (policyserve list)", ARGUMENT_ERROR)
    adapter = find_adapter(target)
    flags = read_flags(adapter, lambda policy: DeployFlags(policy), f"{prog} {name} {target}", words)
    source = find_source(adapter, flags.policy)
    if flags.cluster.deployed_as not in (name, ClusterConfig.deployed_as):
        complain(f"--deployed-as: expected {name}, which is NAME, got {flags.cluster.deployed_as!r}", ARGUMENT_ERROR)
    config = _named(flags.cluster, name)
    cluster.connect(config)
    own = {"max_state_kib": config.max_state_kib, "session_state": config.session_state}
    told = ReplicaSettings(flags.request_timeout_s, **own)
    cluster.deploy(name, source.recipe, config, told)
    if flags.wait:
        _wait(name)
    _show([one for one in cluster.status() if one.name == name])


def _roll(argv: list[str]) -> None:
    prog = f"{PROG} roll"
    name, target, words = _read_names(argv, prog, "NAME [POLICY]", RollFlags(NoFlags()))
    recipe = None
    if target is None:
        flags: RollFlags[Any] = parse(RollFlags[NoFlags], f"{prog} {name}", words, RollFlags(NoFlags()))
    else:
        adapter = find_adapter(target)
        flags = read_flags(adapter, lambda policy: RollFlags(policy), f"{prog} {name} {target}", words)
        recipe = find_source(adapter, flags.policy).recipe
    cluster.connect(_at(flags))
    application, before = cluster.roll(name, recipe, sessions_stay=flags.sessions == "stay")
    if application == before:
        print(f"{name}: the next version loads; {PROG} status says how far it is")
        return
    _wait(application)
    told = f"{application} gets new sessions; {before} is stopped after {flags.roll_patience_s:g} s"
    print(f"{told}; Ctrl-C leaves both, and `{PROG} remove` stops one", flush=True)
    with suppress(KeyboardInterrupt):
        time.sleep(flags.roll_patience_s)
        cluster.remove_version(before)
        print(f"{before}: stopped")


def _scale(argv: list[str]) -> None:
    flags = parse(ScaleFlags, f"{PROG} scale", argv)
    cluster.connect(_at(flags))
    cluster.scale(flags.name, flags.replicas, flags.max_replicas or flags.replicas)
    print(f"{flags.name}: {flags.replicas} replicas wanted; {PROG} status says how many there are")


def _remove(argv: list[str]) -> None:
    flags = parse(RemoveFlags, f"{PROG} remove", argv)
    cluster.connect(_at(flags))
    cluster.remove(flags.name)
    print(f"{flags.name}: stopped")


def _status(argv: list[str]) -> None:
    flags = parse(StatusFlags, f"{PROG} status", argv)
    cluster.connect(_at(flags))
    _show(cluster.status())


def _wait(application: str) -> None:
    """Wait until a replica answers, saying how far it is; raises PolicyFailed.

    A thread asks Ray, whose library sometimes swallows the KeyboardInterrupt of Ctrl-C.
    """
    failures: list[Exception] = []
    leave = threading.Event()

    def wait() -> None:
        try:
            cluster.wait_until_running(application, lambda stage: print(f"  {stage}", flush=True), leave=leave)
        except Exception as error:  # Ray's, or the policy's
            failures.append(error)

    waiting = threading.Thread(target=wait, name="waiting for the cluster", daemon=True)
    try:
        waiting.start()
        waiting.join()
    except KeyboardInterrupt:
        leave.set()
        if waiting.is_alive():
            waiting.join(_LEAVE_S)  # Ray ends the process with an error of its own if it is asked while it shuts down
        warn(f"{application} loads without this command: `{PROG} status` says how far, `{PROG} remove` stops it")
        raise
    if failures:
        raise failures[0]


def _read_names(
    argv: list[str], prog: str, places: str, default: DeployFlags[NoFlags] | RollFlags[NoFlags]
) -> tuple[str, str | None, list[str]]:
    """The name on the cluster, the policy if one is named, and the other words.

    Exits with 0 for help that names no policy, with 2 where there is no name. default: the flags that are not given.
    """
    kind = type(default)
    if help_page.wanted(argv) is not None and (len(argv) < 3 or argv[0].startswith("-")):
        parse(kind, f"{prog} {places}", argv, default, description=overview(str(kind.__doc__)))
    if not argv or argv[0].startswith("-"):
        complain(f"expected a name for the policy on the cluster ({prog} --help)", ARGUMENT_ERROR)
    target, words = take_policy(argv[1:], flags_of(kind, default))
    return argv[0], target, words


def _named(config: ClusterConfig, name: str) -> ClusterConfig:
    try:
        return replace(config, deployed_as=name)
    except ConfigError as error:
        complain(str(error).replace("deployed_as", "NAME"), ARGUMENT_ERROR)


def _at(flags: RollFlags[Any] | ScaleFlags | RemoveFlags | StatusFlags) -> ClusterConfig:
    return ClusterConfig(ray_address=flags.ray_address, insecure=flags.insecure)


def _show(deployed: Sequence[cluster.Deployed]) -> None:
    if not deployed:
        print("nothing is deployed")
    for one in deployed:
        none = "no replica answers" if one.state == "DEPLOY_FAILED" else "being looked at"
        told = f"{one.running} of {one.wanted} replicas answer" if one.wanted else none
        print(f"{one.name:16} version {one.version:6} {one.state:12} {told}{': ' + one.message if one.message else ''}")


_DO: dict[str, Callable[[list[str]], None]] = {
    "deploy": _deploy, "roll": _roll, "scale": _scale, "status": _status, "remove": _remove,
}  # fmt: skip
