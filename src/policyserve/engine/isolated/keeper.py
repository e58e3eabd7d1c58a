"""The process between a server and its policy's: it ends all that the policy has started, whoever of the two ends.

On Linux it is the parent of every process below it that has lost its own (PR_SET_CHILD_SUBREAPER), so that one in a
session of its own, or one that was forked twice to get away, is found too. The policy's process is forked from it
before anything else is imported: this module imports nothing that starts a thread or takes time.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_PATIENCE_S = 2.0  # for what was killed to be gone
_LOOK_MS = 20.0


def keep(server: int, lifeline: int, *others: int) -> int:
    """Fork, and return in the policy's process alone: the number of the process that it has to end with.

    server: its process id. lifeline: a socket whose end tells to kill everything; it gets the policy's process id.
    others: descriptors that are the policy's. On other systems than Linux nothing is forked or killed from here.
    """
    if sys.platform != "linux":
        os.close(lifeline)
        return server
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the server's to answer
    keeper = os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    policy = os.fork()
    if policy == 0:
        os.close(lifeline)
        return keeper
    status = 1 << 8
    try:
        _prctl(_PR_SET_NAME, ctypes.c_char_p(b"policy-keeper"))
        for descriptor in others:  # else the server would not see that the policy's process has closed them
            os.close(descriptor)
        with suppress(OSError):
            os.write(lifeline, b"%d" % policy)
        status = _Keeper(server, policy, lifeline).run()
    finally:
        _end_as(status)


class _Keeper:
    """Waits until the policy's process has ended, or must, and kills what is left of it."""

    def __init__(self, server: int, policy: int, lifeline: int) -> None:
        self._server, self._policy, self._lifeline = server, policy, lifeline
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
        while time.monotonic() < end and self._kill_children():
            self._sleep(_LOOK_MS)
        return status

    def _wait(self) -> int:
        is_told_to_end = False
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == self._policy:
                return status
            if ended:
                continue  # an orphan
            if is_told_to_end or os.getppid() != self._server:
                os.kill(self._policy, signal.SIGKILL)
            is_told_to_end = self._sleep(None)

    def _sleep(self, most_ms: float | None) -> bool:
        """Until a child ends; returns whether the lifeline has."""
        ready = {descriptor for descriptor, _ in self._poll.poll(most_ms)}
        if self._wakes in ready:
            os.read(self._wakes, 4096)
        return self._lifeline in ready

    def _kill_children(self) -> bool:
        """Kill those that are there now; returns whether there were any."""
        for number in _children_of(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return False
        return True


def _children_of(parent: int) -> list[int]:
    """Their process ids; none where /proc is not there."""
    found: list[int] = []
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # it may have ended meanwhile
                    # Behind the name, which may hold anything: its state, its parent.
                    if int(stat.read().rpartition(b")")[2].split()[1]) == parent:
                        found.append(int(name))
    return found


def _end_as(status: int) -> NoReturn:
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
