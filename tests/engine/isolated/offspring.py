"""A policy that starts processes in every way that gets them out of sight, and does other things to its server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from policyserve.core.policy import ActionChunk, PolicyInput
from tests.engine.obedient import Obedient

# Each prints the process id of what it leaves running.
WAYS: Mapping[str, Sequence[str]] = {
    "a child": ("sh", "-c", "echo $$; exec sleep 1000"),
    "a grandchild": ("sh", "-c", "sleep 1000 & echo $!; wait"),
    "an orphan": ("sh", "-c", "sleep 1000 & echo $!"),
    "an orphan in a session of its own": ("sh", "-c", "setsid sleep 1000 & echo $!"),
    "an orphan's child in a session of its own": ("sh", "-c", "setsid sh -c 'sleep 1000 & echo $!; wait' &"),
    "one that takes no signal": ("sh", "-c", "trap '' HUP INT TERM; echo $$; while :; do sleep 1000; done"),
}


class Parental(Obedient):
    """Does what `do` says."""

    def start(self, one: PolicyInput) -> ActionChunk:
        """Start a process in each way; tells their numbers."""
        numbers = [_started(command, is_leader) for command in WAYS.values() for is_leader in (False, True)]
        return ActionChunk(one.observation["x"], extras={"numbers": [*numbers, _forked()]})

    def start_and_die(self, one: PolicyInput) -> ActionChunk:
        """Start them, leave their numbers in a file, and die of the signal x; 0: end with exit code 3."""
        assert self._marks is not None
        numbers = self.start(one).extras["numbers"]
        (self._marks / "numbers.part").write_text(" ".join(map(str, numbers)))
        (self._marks / "numbers.part").rename(self._marks / "numbers")
        return self.die(one)

    def stop_all(self, one: PolicyInput) -> ActionChunk:
        """Stop this process and those of its group."""
        self._mark("stopping")
        os.killpg(0, signal.SIGSTOP)
        return self.echo(one)

    def signal_all(self, one: PolicyInput) -> ActionChunk:
        """Send its group what a terminal or a service manager would."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.killpg(0, number)
        return self.echo(one)

    def truncate(self, one: PolicyInput) -> ActionChunk:
        """Cut off all memory that it shares; tells how often that was tried, and how often refused."""
        shared = [number for number in map(int, os.listdir("/proc/self/fd")) if "policyserve" in _name_of(number)]
        refused = sum(_is_refused(descriptor, size) for descriptor in shared for size in (0, 4096))
        return ActionChunk(one.observation["x"], extras={"tried": 2 * len(shared), "refused": refused})

    def variables(self, one: PolicyInput) -> ActionChunk:
        told = "\n".join(f"{name}={value}" for name, value in os.environ.items())
        return ActionChunk(one.observation["x"], extras={"variables": told})


def _started(command: Sequence[str], is_leader: bool) -> int:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=is_leader)
    assert process.stdout is not None
    return int(process.stdout.readline())


def _forked() -> int:
    """A process that was forked and runs no other program: it keeps what this one has open."""
    number = os.fork()
    if number == 0:
        os.setsid()
        while True:
            signal.pause()
    return number


def _name_of(descriptor: int) -> str:
    """What is open there; empty for the listing's own, which is closed."""
    with suppress(FileNotFoundError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return ""


def _is_refused(descriptor: int, size: int) -> bool:
    try:
        os.ftruncate(descriptor, size)
    except PermissionError:
        return True
    return False


def make(marks: Path | None = None) -> Any:
    return Parental(marks)
