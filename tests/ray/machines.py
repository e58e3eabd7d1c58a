"""Hosts on one machine: each has an address, a network and processes of its own, and a cable that can be cut.

A host is a network namespace and a process namespace of Linux; a switch is another one, with a bridge. Files are the
machine's. What must stay true: nothing outlives the test, even a test that is killed. So no namespace has a name: each
lasts as long as its first process, which ends when this one does, and takes all processes and devices with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from pathlib import Path

_NEEDED = ("ip", "unshare", "nsenter", "setpriv")
_NAMESPACES = ("--net", "--pid", "--fork", "--mount-proc", "--kill-child")
# The first process of a host: reaps those whose parents ended, and ends with whoever holds its stdin.
_FIRST = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print('up', flush=True); sys.stdin.read()"
_FOR_TESTS = IPv4Network("198.18.0.0/15")  # RFC 2544 sets it aside for tests of networks: nobody is there
_BRIDGE = "between"
_SLOW_CABLE = Path(__file__).with_name("slow_cable.py")


class Host:
    """A host by its first process. name: also that of its port at the switch."""

    def __init__(self, name: str, address: str, first: int) -> None:
        self.name = name
        self.address = address
        self.first = first
        self._namespace = _process_namespace(first)

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs a command on it, and ends with that; and that ends with it."""
        return ["nsenter", "-t", str(self.first), "-n", "-p", "-m", "setpriv", "--pdeathsig", "KILL", *command]

    def end_all(self) -> None:
        """End all that runs on it, at once. Its kernel is there, and says goodbye on their connections."""
        for process in self.processes():
            if process != self.first:
                with suppress(ProcessLookupError):  # it ended with another one
                    os.kill(process, signal.SIGKILL)

    def processes(self, title: str = "") -> list[int]:
        """The numbers that its processes have in this namespace; those whose command line begins so."""
        numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        mine = [number for number in numbers if _process_namespace(number) == self._namespace]
        return sorted(number for number in mine if _title(number).startswith(title))


@dataclass
class Cable:
    """What a slow cable has carried, and what it has lost, in packets; known once it is taken away."""

    carried: int = 0
    lost: int = 0


class Network:
    """A switch, the hosts at it, and this process, which reaches them by an address of the same network."""

    def __init__(self, switch: int, subnet: IPv4Network, ending: ExitStack) -> None:
        self._switch = switch
        self._subnet = subnet
        self._addresses = (str(address) for address in subnet.hosts())
        self._ending = ending

    def join(self) -> None:
        """Have this process reach the hosts."""
        own = f"hosts{os.getpid()}"  # the one name outside
        self._at_switch("link", "add", "name", _BRIDGE, "type", "bridge")
        self._at_switch("link", "set", "dev", _BRIDGE, "up")
        _ip("link", "add", "name", own, "type", "veth", "peer", "name", "tests", "netns", str(self._switch))
        self._ending.callback(_ip, "link", "delete", "dev", own)  # the kernel would do it soon, not at once
        self._at_switch("link", "set", "dev", "tests", "master", _BRIDGE, "up")
        _ip("address", "add", f"{next(self._addresses)}/{self._subnet.prefixlen}", "dev", own)
        _ip("link", "set", "dev", own, "up")

    def host(self, name: str) -> Host:
        """Another host."""
        outer = self._ending.enter_context(_first_process(_NAMESPACES))
        host = Host(name, next(self._addresses), int(_children(outer.pid)[0]))
        self._at_switch("link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.first))
        self._at_switch("link", "set", "dev", name, "master", _BRIDGE, "up")
        inside = ("nsenter", "-t", str(host.first), "-n")
        _run(*inside, "ip", "address", "add", f"{host.address}/{self._subnet.prefixlen}", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run(*inside, "ip", "link", "set", "dev", device, "up")
        return host

    def cut(self, host: Host) -> None:
        """Let nothing through to a host or from it. What runs there is told nothing."""
        self._at_switch("link", "set", "dev", host.name, "down")

    def mend(self, host: Host) -> None:
        """Let everything through again."""
        self._at_switch("link", "set", "dev", host.name, "up")

    @contextmanager
    def slow(self, host: Host, delay_ms: float = 0.0, loss: float = 0.0) -> Iterator[Cable]:
        """Have what goes to a host and what comes from it take so long, and have this share of packets lost."""
        cable = Cable()
        near, far, bridge = (f"{host.name}-{part}" for part in ("near", "far", "slow"))
        command = [sys.executable, str(_SLOW_CABLE), near, far, str(delay_ms / 1e3), str(loss)]
        with _started(["nsenter", "-t", str(self._switch), "-n", *command]) as process:
            self._at_switch("link", "add", "name", bridge, "type", "bridge")
            self._at_switch("link", "set", "dev", bridge, "up")
            self._at_switch("link", "set", "dev", near, "master", _BRIDGE, "up")
            self._at_switch("link", "set", "dev", far, "master", bridge, "up")
            self._at_switch("link", "set", "dev", host.name, "master", bridge)
            try:
                yield cable
            finally:
                self._at_switch("link", "set", "dev", host.name, "master", _BRIDGE)
                self._at_switch("link", "delete", "dev", bridge)
                told, _ = process.communicate()
                cable.carried, cable.lost = map(int, told.split())

    def _at_switch(self, *words: str) -> None:
        _run("nsenter", "-t", str(self._switch), "-n", "ip", *words)


@contextmanager
def network() -> Iterator[Network]:
    """A network without hosts; it and its hosts are gone at the end."""
    with ExitStack() as ending:
        switch = ending.enter_context(_first_process(("--net", "--kill-child", "--fork")))
        made = Network(int(_children(switch.pid)[0]), _free_subnet(), ending)
        made.join()
        yield made


def why_not() -> str:
    """Why there can be no hosts on this machine; empty: there can."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        return f"hosts need iproute2 and util-linux: there is no {missing[0]}"
    if os.geteuid() != 0:
        return "hosts need root"
    if not Path("/dev/net/tun").exists():
        return "slow cables need /dev/net/tun"
    tried = subprocess.run(["unshare", *_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return f"namespaces are refused: {tried.stderr.strip()}" if tried.returncode else ""


def _free_subnet() -> IPv4Network:
    """A network that no address and no route of this machine is about."""
    routes = json.loads(_ip("-4", "-json", "route", "show", "table", "all"))
    used = [ip_network(one["dst"], strict=False) for one in routes if one["dst"] != "default"]
    return next(net for net in _FOR_TESTS.subnets(new_prefix=24) if not any(net.overlaps(one) for one in used))


@contextmanager
def _first_process(namespaces: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with _started(["unshare", *namespaces, sys.executable, "-c", _FIRST]) as outer:
        yield outer


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A program that prints a line once it is up, and ends with its stdin."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n", f"{command} did not come up"
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()  # until those that it took with it have let go of its stdout


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def _children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def _process_namespace(process: int) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/pid")
    except OSError:
        return ""  # it has ended


def _title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""  # it has ended
