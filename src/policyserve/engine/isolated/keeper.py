"""The process between a server and its policy's: it ends all that the policy has started, whoever of the two ends.

On Linux it is the parent of every process below it that has lost its own (PR_SET_CHILD_SUBREAPER), so that one in a
session of its own, or one that was forked twice to get away, is found too. child.py runs this file without the package
around it. Every policy's process waits for it to start: so it imports little, and of Python's own library alone.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_PATIENCE_S = 2.0  # for what was killed to be gone
_LOOK_MS = 20.0


def main(program: str, server: int, lifeline: int, *others: int) -> None:
    """Run a Python program, given as a text, as the policy's process; end as it ends.

    server: its process id. lifeline: a socket whose end tells to kill everything; it gets the policy's process id.
    others: descriptors for the program, whose arguments are this process's id and these.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the server's to answer
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_NAME, ctypes.c_char_p(b"policy-keeper"))
    os.set_inheritable(lifeline, False)
    command = [sys.executable, "-c", program, *map(str, (os.getpid(), *others))]
    policy = os.posix_spawn(sys.executable, command, os.environ)
    for descriptor in others:  # else the server would not see that the policy's process has closed them
        os.close(descriptor)
    with suppress(OSError):  # the server wants it to end, or has ended
        os.write(lifeline, b"%d" % policy)
    _end_as(_Keeper(server, policy, lifeline).run())


class _Keeper:
    """Waits until the policy's process has ended, or must, and kills what is left of it."""

    def __init__(self, server: int, policy: int, lifeline: int) -> None:
        self._server, self._policy, self._lifeline = server, policy, lifeline
        self._is_told_to_end = False
        self._wakes, wake = os.pipe()
        for descriptor in (self._wakes, wake):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that Python writes into the pipe
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCHLD)  # wakes this up where others hold the lifeline's other end
        self._poll = select.poll()
        for descriptor in (self._wakes, lifeline):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> int:
        """Returns the status with which the policy's process ended."""
        status = self._wait()
        end = time.monotonic() + _PATIENCE_S
        # What it has started and left behind is a child of this process now, or will be when its own parent is gone.
        while time.monotonic() < end and self._has_children():
            for number in _children_of(os.getpid()):
                _kill(number)
            self._sleep(_LOOK_MS)
        return status

    def _wait(self) -> int:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == self._policy:
                return status
            if ended:
                continue  # an orphan
            if self._is_told_to_end or os.getppid() != self._server:
                _kill(self._policy)
            self._sleep(None)

    def _sleep(self, most_ms: float | None) -> None:
        """Until a child ends, or the lifeline."""
        ready = {descriptor for descriptor, _ in self._poll.poll(most_ms)}
        if self._wakes in ready:
            os.read(self._wakes, 4096)
        if self._lifeline in ready:
            self._is_told_to_end = True
            self._poll.unregister(self._lifeline)  # it would wake this up again at once

    def _has_children(self) -> bool:
        """Whether there are any, once those that have ended are reaped."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return False
        return True


def _children_of(parent: int) -> list[int]:
    """Their process ids; none where /proc is not there."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    return [int(name) for name in names if name.isdecimal() and _parent_of(name) == parent]


def _parent_of(name: str) -> int:
    """The parent of a process; 0 if it has ended meanwhile."""
    try:
        with open(f"/proc/{name}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])  # behind its name, which may hold anything
    except OSError:
        return 0


def _kill(number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended, or is another user's by now
        os.kill(number, signal.SIGKILL)


def _end_as(status: int) -> None:
    """End as the policy's process has ended, since the server looks at this one."""
    if os.WIFSIGNALED(status):
        import resource

        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _prctl(option: int, value: object) -> None:
    """What a kernel does not know it refuses, and the rest goes on without."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
