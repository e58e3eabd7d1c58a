"""A thread with an event loop for others to use."""

from __future__ import annotations

import threading

import pytest

from policyserve.policies.remote.loop_thread import LoopThread


def test_it_runs_what_others_wait_for_and_what_nobody_waits_for_and_ends() -> None:
    thread, done = LoopThread("test-loop"), threading.Event()

    async def name() -> str:
        return threading.current_thread().name

    async def work() -> None:
        done.set()

    async def broken() -> None:
        raise KeyError("no")

    assert thread.run(name()) == "test-loop"
    with pytest.raises(KeyError):
        thread.run(broken())
    thread.begin(work)
    thread.close()
    assert done.is_set()
    assert "test-loop" not in [one.name for one in threading.enumerate()]
    thread.begin(work)  # a finalizer that comes late
