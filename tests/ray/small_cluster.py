"""A cluster of Ray on this machine: a head without work and two nodes, whose processes are this machine's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from policyserve.core.recipe import Recipe
from policyserve.ray import cluster
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from tests.cli.serving import POLICYSERVE, ROOT, Serving, serving

NAME = "counting"
PATIENCE_S = 120.0  # generous: only a bug reaches it
STORE = 100 * 2**20  # bytes of each node's object store, the least that is quick
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
        """Have two replicas."""
        cluster.deploy(NAME, recipe, self.config, ReplicaSettings())
        cluster.wait_until_running(NAME, lambda _: None, PATIENCE_S)
        self.until_running(2)

    @contextmanager
    def scaled(self, name: str, least: int, most: int) -> Iterator[str]:
        """The policy beside that, of 100 ms, under a name of its own; its replicas follow the load at once."""
        config = replace(
            self.config, deployed_as=name, min_replicas=least, max_replicas=most, upscale_delay_s=1, downscale_delay_s=2
        )
        cluster.deploy(name, self.recipe(1, takes_s=0.1), config, ReplicaSettings())
        try:
            cluster.wait_until_running(name, lambda _: None, PATIENCE_S)
            yield name
        finally:
            cluster.remove(name)

    @contextmanager
    def staying(self, name: str) -> Iterator[list[int]]:
        """The policy beside that, whose sessions stay with its two replicas; their processes."""
        before = set(self.processes())
        config = replace(self.config, deployed_as=name, session_state="stays")
        cluster.deploy(name, self.recipe(1), config, ReplicaSettings(session_state="stays"))
        try:
            cluster.wait_until_running(name, lambda _: None, PATIENCE_S)
            until(lambda: len(set(self.processes()) - before) == 2, "no two replicas keep sessions")
            yield sorted(set(self.processes()) - before)
        finally:
            cluster.remove(name)

    def until_running(self, count: int) -> None:
        until(lambda: self._is_running(count), f"{count} replicas do not run")

    def processes(self) -> list[int]:
        """The replicas' processes that live."""
        numbers = [int(path.name.partition(".")[0]) for path in self.pids.iterdir()]
        return sorted(number for number in numbers if Path(f"/proc/{number}").exists())

    def lose_a_node(self) -> None:
        """End a node's processes without a word to anybody, and have another one come."""
        self._cluster.remove_node(self._cluster.worker_nodes.copy().pop(), allow_graceful=False)
        self.add_nodes(1)

    def lose_all_nodes(self) -> None:
        """Have no node left that a replica could be on."""
        for node in self._cluster.worker_nodes.copy():
            self._cluster.remove_node(node, allow_graceful=False)

    def add_nodes(self, count: int = 2) -> None:
        """Have so many nodes more."""
        for _ in range(count):
            self._cluster.add_node(num_cpus=2, object_store_memory=STORE)

    @contextmanager
    def cut_off(self) -> Iterator[set[int]]:
        """A node with one of the replicas whose processes all stand still; gives these.

        Nobody hears of it any more, and no connection ends. At the end they go on, those that the cluster did not give
        up, and another node comes.
        """
        nodes = [_with_children(node.all_processes["raylet"][0].process.pid) for node in self._cluster.worker_nodes]
        (processes, *_) = [found for found in nodes if len(found & set(self.processes())) == 1]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield processes
        finally:
            for process in processes:
                with suppress(ProcessLookupError):  # whom the cluster ended meanwhile
                    os.kill(process, signal.SIGCONT)
            self.add_nodes(1)

    @contextmanager
    def edge(
        self, *flags: str, policies: Sequence[str] = ("tests.ray.counting:policy", "--deployed-as", NAME), port: int = 0
    ) -> Iterator[Serving]:
        """An edge in a process of its own."""
        where = ["--engine", "ray", "--ray-address", self.address, "--host", "127.0.0.1", "--port", str(port)]
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


def until(is_so: Callable[[], Any], told: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def _with_children(process: int) -> set[int]:
    """A process and those that it began, with theirs."""
    told = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return {process}.union(*(_with_children(int(child)) for child in " ".join(told).split()))


def _begun(tries: int = 3) -> Any:
    """A cluster with its nodes. Ray gives a node 30 s to come, which a busy machine may need several times."""
    made = import_module("ray.cluster_utils").Cluster()
    try:
        made.add_node(num_cpus=0, object_store_memory=STORE, include_dashboard=False)
        for _ in range(2):
            made.add_node(num_cpus=2, object_store_memory=STORE)
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
