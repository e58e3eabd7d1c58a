"""A cluster of Ray on this machine: a head without work and two nodes, whose processes are this machine's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from policyserve.core.recipe import Recipe
from policyserve.ray import cluster
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from tests.cli.serving import POLICYSERVE, ROOT, Serving, serving

NAME = "counting"
PATIENCE_S = 120.0  # generous: only a bug reaches it
_STORE = 100 * 2**20  # bytes of each node's object store, the least that is quick
_TOKEN = "0123456789abcdef" * 4


class SmallCluster:
    """Two replicas of the counting policy, and what can happen to them. pids: where each leaves its number."""

    def __init__(self, ray_cluster: Any, pids: Path) -> None:
        self._cluster = ray_cluster
        self.address = ""
        self.pids = pids

    @property
    def config(self) -> ClusterConfig:
        return ClusterConfig(
            deployed_as=NAME, ray_address=self.address, num_gpus=0, num_cpus=0.1, min_replicas=2, max_replicas=2,
            health_period_s=1, health_timeout_s=3,
        )  # fmt: skip

    def recipe(self, version: int, **more: Any) -> Recipe:
        return Recipe("tests.ray.counting:Counting", {"version": version, "pids": self.pids, **more})

    def deploy(self, recipe: Recipe) -> None:
        cluster.deploy(NAME, recipe, self.config, ReplicaSettings())
        cluster.wait_until_running(NAME, lambda _: None, PATIENCE_S)
        self.until_running(2)

    def until_running(self, count: int) -> None:
        until(lambda: self._is_running(count), f"{count} replicas do not run")

    def processes(self) -> list[int]:
        """The replicas' processes that live."""
        numbers = [int(path.name.partition(".")[0]) for path in self.pids.iterdir()]
        return sorted(number for number in numbers if Path(f"/proc/{number}").exists())

    def lose_a_node(self) -> None:
        """End a node's processes without a word to anybody, and have another one come."""
        self._cluster.remove_node(self._cluster.worker_nodes.copy().pop(), allow_graceful=False)
        self._cluster.add_node(num_cpus=2, object_store_memory=_STORE)

    @contextmanager
    def edge(
        self, *flags: str, policies: Sequence[str] = ("tests.ray.counting:policy", "--deployed-as", NAME)
    ) -> Iterator[Serving]:
        """An edge in a process of its own."""
        where = ["--engine", "ray", "--ray-address", self.address, "--host", "127.0.0.1", "--port", "0"]
        command = [*POLICYSERVE, "serve", *policies, *where]
        with serving([*command, "--call-timeout-s", "2", *flags]) as started:
            yield started

    def command(self, *words: str) -> str:
        """What a command of `policyserve cluster` prints."""
        command = [*POLICYSERVE, "cluster", *words, "--ray-address", self.address]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _is_running(self, count: int) -> bool:
        (found, *_) = [one for one in cluster.status() if one.name == NAME]
        return (found.running, found.wanted, found.state) == (count, count, "RUNNING")


def until(is_so: Callable[[], Any], told: str) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def _begun(tries: int = 3) -> Any:
    """A cluster with its nodes. Ray gives a node 30 s to come, which a busy machine may need several times."""
    made = import_module("ray.cluster_utils").Cluster()
    try:
        made.add_node(num_cpus=0, object_store_memory=_STORE, include_dashboard=False)
        for _ in range(2):
            made.add_node(num_cpus=2, object_store_memory=_STORE)
    except Exception:  # Ray's own class for it is Exception
        made.shutdown()
        if tries == 1:
            raise
        return _begun(tries - 1)
    return made


@contextmanager
def surroundings() -> Iterator[None]:
    """What Ray's processes find in the environment: a token, which Ray reads once, and no folder of others."""
    before = dict(os.environ)
    ours = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_TOKEN, PYTHONPATH=ours)
    yield
    os.environ.clear()
    os.environ.update(before)


@contextmanager
def small_cluster(pids: Path) -> Iterator[SmallCluster]:
    """A cluster with token authentication that has ended at the end."""
    ray, serve = import_module("ray"), import_module("ray.serve")
    made = _begun()
    found = SmallCluster(made, pids)
    try:
        found.address = made.address
        cluster.connect(found.config)
        yield found
        cluster.remove(NAME)
    finally:
        with suppress(Exception):  # what is left of it is ended below
            serve.shutdown()
        ray.shutdown()
        made.shutdown()
        for number in found.processes():  # a frozen one hears nobody
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
