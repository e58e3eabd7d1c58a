"""A policy's process, seen from its server: how it is started and killed, and how its end is noticed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from policyserve.core.errors import ConfigError

# The path first: what the worker imports must be what the server imports, wherever both stand.
SAME_PATH = "import os, sys; sys.path[:] = os.environ.pop('_POLICYSERVE_PATH').split(os.pathsep); "
_START = SAME_PATH + "from policyserve.engine.isolated.worker import main; main(*map(int, sys.argv[1:]))"
# By its directory, since the package around it takes long to import.
_KEEP = "import sys; sys.path.insert(0, sys.argv[1]); import keeper; keeper.main(sys.argv[2], *map(int, sys.argv[3:]))"
_KEEPER_DIRECTORY = str(Path(__file__).parent)
_NOT_FOR_POLICIES = ("POLICYSERVE_API_KEY",)  # variables
_LAST_RESORT_S = 4.0  # from the order to end to killing the process that should have carried it out


class Child:
    """A started process. on_exit is called in a thread of its own, once, with the exit code (minus the signal).

    number: its process id; on Linux first that of its keeper (keeper.py), which stands between the two.
    """

    def __init__(self, descriptors: Sequence[int], device: str | None, on_exit: Callable[[int], None]) -> None:
        self._lock = threading.Lock()
        self._is_gone = False  # reaped: its number may be another process's by now
        self._last_resort: threading.Timer | None = None
        self._lifeline, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    _command(theirs.fileno(), descriptors),
                    pass_fds=(theirs.fileno(), *descriptors),
                    stdin=subprocess.DEVNULL,
                    stdout=log_descriptor(),  # the server's own stdout is for those who wait for its lines
                    stderr=log_descriptor(),
                    env=child_environment(device),
                    start_new_session=True,  # Ctrl-C in a terminal is for the server, which drains before it ends it
                )
            except BaseException:
                self._lifeline.close()
                raise
        self.number = self._process.pid
        threading.Thread(target=self._wait, args=(on_exit,), name="policy process", daemon=True).start()

    def kill(self) -> None:
        """Kill it and the processes that it has started; nothing happens if it has ended.

        Those in sessions of their own are killed on Linux only.
        """
        with self._lock:
            if self._is_gone or self._last_resort is not None:
                return
            if sys.platform != "linux":
                self._signal_group(signal.SIGKILL)
                return
            with suppress(OSError):  # it has ended
                self._lifeline.shutdown(socket.SHUT_RDWR)
            self._signal_group(signal.SIGCONT)  # the policy may have stopped it
            self._last_resort = threading.Timer(_LAST_RESORT_S, self._kill_hard)
            self._last_resort.daemon = True
            self._last_resort.start()

    def _kill_hard(self) -> None:
        with self._lock:
            if not self._is_gone:
                self._signal_group(signal.SIGKILL)

    def _wait(self, on_exit: Callable[[int], None]) -> None:
        told = self._lifeline.recv(32)
        self.number = int(told or self._process.pid)
        if hasattr(os, "waitid"):
            # Before it is reaped its number is nobody else's: what it has started and left behind can be killed safely.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self._signal_group(signal.SIGKILL)
        with self._lock:
            code = self._process.wait()
            self._is_gone = True
            self._lifeline.close()
            if self._last_resort is not None:
                self._last_resort.cancel()
        on_exit(code)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _command(lifeline: int, descriptors: Sequence[int]) -> Sequence[str]:
    """The policy's program, run by a keeper where there can be one."""
    server, others = str(os.getpid()), map(str, descriptors)
    if sys.platform != "linux":
        return [sys.executable, "-c", _START, server, *others]
    return [sys.executable, "-S", "-c", _KEEP, _KEEPER_DIRECTORY, _START, server, str(lifeline), *others]


def describe_exit(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (by the system, if memory ran out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def check_devices(devices: Sequence[str]) -> None:
    """Raise ConfigError unless each is cpu or cuda:N, and one that this process may use."""
    for device in devices:
        _visible_gpu(device)


def child_environment(device: str | None = None) -> Mapping[str, str]:
    """The environment of this process, with the device as the only one that the child's framework sees."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_POLICIES}
    environment = {**kept, "_POLICYSERVE_PATH": path}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = _visible_gpu(device)
        if device == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
    return environment


def _visible_gpu(device: str) -> str:
    """What CUDA_VISIBLE_DEVICES has to be: the N-th of those that are visible here, empty for cpu."""
    kind, _, index = device.partition(":")
    if device == "cpu":
        return ""
    if kind != "cuda" or not index.isdecimal():
        raise ConfigError(f"devices: expected cpu or cuda:N, such as cuda:0,cuda:1, got {device!r}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return index
    names = [name for name in visible.split(",") if name]
    if int(index) >= len(names):
        raise ConfigError(f"devices: {device} is not there: CUDA_VISIBLE_DEVICES={visible} shows {len(names)}")
    return names[int(index)]


def log_descriptor() -> int:
    """stderr, where the log goes; nowhere if the server has none."""
    with suppress(OSError):
        os.fstat(2)
        return 2
    return subprocess.DEVNULL
