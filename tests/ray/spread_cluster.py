"""A cluster of Ray each of whose nodes is on a host of its own: a head, one for edges, and two for replicas."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cli.serving import POLICYSERVE, ROOT, Serving, serving
from tests.ray.machines import Host, Network, network
from tests.ray.small_cluster import NAME, PATIENCE_S, STORE, until

_RAY = (sys.executable, "-m", "ray.scripts.scripts")
_RAY_PORT = 6379
_EDGE_PORT = 8000
_TRIES = 3
_STARTED = "Ray runtime started"  # what `ray start` prints then
_REPLICA = "ray::ServeReplica"  # how the command line of such a process begins
# Programs for the head's host. Their words: the cluster's address, and what the policy is called there.
_CONNECTED = """
import sys, ray
from policyserve.ray import cluster, roster
from policyserve.ray.config import ClusterConfig
cluster.connect(ClusterConfig(ray_address=sys.argv[1]))
"""
_ANNOUNCED = "print(*(place.host for place in roster.find(sys.argv[2])))"
_LIVING = "print(*(node['NodeManagerAddress'] for node in ray.nodes() if node['Alive']))"


class SpreadCluster:
    """Two replicas of the counting policy, one on each of two hosts. folder: for what nodes and edges write."""

    def __init__(self, net: Network, folder: Path, ending: ExitStack) -> None:
        self.net = net
        self.head, self.edges, self.one, self.two = (net.host(name) for name in ("head", "edges", "one", "two"))
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}  # by their hosts' names; each ends when its node does
        self._folder = folder
        self._ending = ending

    def start(self) -> None:
        """Have the nodes, and the replicas."""
        self.begin_node(self.head, "--head", "--port", str(_RAY_PORT), "--include-dashboard", "false", cpus=0)
        self.begin_node(self.edges, cpus=0)
        for host in (self.one, self.two):
            self.begin_node(host)
        replicas = ("--num-gpus", "0", "--num-cpus", "0.1", "--min-replicas", "2", "--max-replicas", "2")
        health = ("--health-period-s", "1", "--health-timeout-s", "3")
        self.command("deploy", NAME, "tests.ray.counting:policy", *replicas, *health)
        until(lambda: "2 of 2 replicas answer" in self.command("status"), "there are no two replicas")

    def begin_node(self, host: Host, *flags: str, cpus: int = 2) -> None:
        """Have a host be a node. Ray gives one 30 s to come, which a busy machine may need several times."""
        where = flags or ("--address", self._address)
        bounds = ("--num-cpus", str(cpus), "--object-store-memory", str(STORE), "--disable-usage-stats")
        own = ("--node-ip-address", host.address, "--temp-dir", str(self._folder / host.name), "--block")
        log = self._folder / f"{host.name}.log"
        for _ in range(_TRIES):
            with log.open("wb") as told:
                command = host.inside([*_RAY, "start", *where, *bounds, *own])
                node = subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=subprocess.STDOUT)
            self.nodes[host.name] = node
            self._ending.callback(_end, node)
            until(lambda node=node: _STARTED in log.read_text() or node.poll() is not None, f"{host.name} is no node")
            if node.poll() is None:
                return
            host.end_all()
        raise AssertionError(log.read_text())

    def replicas(self, host: Host) -> list[int]:
        """The replicas' processes on a host."""
        return host.processes(_REPLICA)

    @contextmanager
    def edge(self, *flags: str) -> Iterator[Serving]:
        """An edge on its host. What it logs stands in the file `edge_log`."""
        where = ("--ray-address", self._address, "--host", self.edges.address, "--port", str(_EDGE_PORT))
        policy = ("tests.ray.counting:policy", "--engine", "ray", "--deployed-as", NAME, "--call-timeout-s", "2")
        command = [*POLICYSERVE, "serve", *policy, *where, *flags]
        into_log = ("sh", "-c", 'exec "$@" 2>"$0"', str(self.edge_log))  # a pipe would be full some time
        with serving(self.edges.inside([*into_log, *command])) as started:
            yield started

    @property
    def edge_log(self) -> Path:
        return self._folder / "edge.log"

    def announced(self) -> set[str]:
        """The addresses at which replicas say that they listen."""
        return self._told_by(_ANNOUNCED)

    def living(self) -> set[str]:
        """The addresses of the nodes that Ray has not given up."""
        return self._told_by(_LIVING)

    def command(self, *words: str) -> str:
        """What a command of `policyserve cluster` prints, on the head's host."""
        return self._on_head([*POLICYSERVE, "cluster", *words, "--ray-address", self._address])

    def _told_by(self, program: str) -> set[str]:
        return set(self._on_head([sys.executable, "-c", _CONNECTED + program, self._address, NAME]).split())

    def _on_head(self, command: Sequence[str]) -> str:
        """What a program prints there: one that asks Ray has to be on a node."""
        inside = self.head.inside(command)
        done = subprocess.run(inside, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def _address(self) -> str:
        return f"{self.head.address}:{_RAY_PORT}"


@contextmanager
def spread_cluster() -> Iterator[SpreadCluster]:
    """A cluster with token authentication on hosts of its own, which has ended at the end."""
    # A path in it has to fit into the address of a Unix socket, so it is not pytest's.
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="nodes")))
        made = SpreadCluster(ending.enter_context(network()), folder, ending)
        made.start()
        yield made


def _end(node: subprocess.Popen[bytes]) -> None:
    node.kill()  # and with it what it runs on the host
    node.wait()
