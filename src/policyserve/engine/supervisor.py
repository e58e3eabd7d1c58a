"""Replaces a runner that breaks or hangs, after pauses that grow; sessions stay open and their requests wait.

The policy state of the sessions is lost with the runner.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from policyserve.core.callbacks import do_nothing
from policyserve.core.errors import PolicyFailed
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.sameness import is_same
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage, Task
from policyserve.engine.inline import InlinePolicy
from policyserve.engine.runner import OnDone, Runner

log = Log(__name__)

_FIRST_PAUSE_S = 0.1  # before the first replacement; each further one waits twice as long
_LONGEST_PAUSE_S = 30.0
_GOOD_S = 60.0  # a runner that lived so long starts the count anew
_TELL_S = 1.0  # of waiting for what was abandoned, before it is told


class Supervisor:
    """Runs a policy in one runner after another; each comes from `make`.

    max_abandoned: how many runners that were let go may still be there when the next one starts. name: for the log.
    stage: what is being done while it cannot answer, empty while it can; on_down and on_up are told of the changes,
    on_up with the max_batch that it has now. That alone of its spec may be another one after a replacement, as it may
    depend on how much memory is free.
    """

    def __init__(self, make: Callable[[], Runner], max_abandoned: int, name: str = "the policy") -> None:
        self.stage = "starting"
        self.on_down: Callable[[], None] = do_nothing
        self.on_up: Callable[[int], None] = do_nothing
        self.on_replaced: Callable[[str, str], None] = do_nothing  # with its name and the reason
        self._make = make
        self._max_abandoned = max_abandoned
        self._name = name
        self._runner: Runner | None = None
        self._spec: PolicySpec | None = None
        self._max_batch = 0  # of the runner that is up
        self._abandoned: list[asyncio.Future[None]] = []
        self._failures = 0  # in a row
        self._up_at = 0.0
        self._broken_at_start = ""  # why the runner broke, if it did before _take_up()
        self._restarting: asyncio.Task[None] | None = None
        self._is_closed = False

    async def start(self, on_stage: OnStage) -> PolicySpec:
        """Load the policy in a first runner; raises what loading raised."""
        self._spec = await self._start_runner(on_stage)
        self._max_batch = self._spec.max_batch
        self._take_up()
        return self._spec

    @property
    def inline(self) -> InlinePolicy | None:
        """The runner's, while it is up."""
        return None if self.stage or self._runner is None else self._runner.inline

    @property
    def sources(self) -> Sequence[str]:
        """The runner's."""
        return () if self._runner is None else self._runner.sources

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        """Have the runner answer a batch; only while it is up."""
        assert self._runner is not None
        self._runner.infer(batch, on_done)

    def take_back(self, session: Hashable) -> None:
        """Undo what a session's last request did to its policy state."""
        if self._runner is not None:
            self._runner.take_back(session)

    def forget(self, session: Hashable) -> None:
        """Drop a session's policy state."""
        if self._runner is not None:
            self._runner.forget(session)

    def replace(self, reason: str) -> None:
        """Let go of the runner, which is broken or hangs, and start another."""
        if self.stage or self._is_closed:
            self._broken_at_start = reason
            return
        assert self._runner is not None
        self._failures = 1 if time.monotonic() - self._up_at > _GOOD_S else self._failures + 1
        self.stage = "restarting the policy"
        lost = Event("policy_lost", policy=self._name)
        log.error("%s is replaced, and what it remembered of its sessions is gone: %s", self._name, reason, event=lost)
        self._abandoned.append(self._runner.abandon())
        self.on_replaced(self._name, reason)
        self.on_down()
        self._restarting = asyncio.get_running_loop().create_task(self._restart())

    async def close(self, timeout_s: float) -> None:
        """Close the policy; gives up waiting for it after timeout_s."""
        self._is_closed = True
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        if self._runner is not None:
            await self._runner.close(timeout_s)
        # These refer to each other in a circle, which would keep the policy until the collector comes by.
        self._runner, self._make, self.on_down, self.on_up = None, _gone, do_nothing, do_nothing

    async def _start_runner(self, on_stage: OnStage) -> PolicySpec:
        runner = self._runner = self._make()
        runner.on_broken = self.replace
        self._broken_at_start = ""
        return await runner.start(on_stage)

    def _take_up(self) -> None:
        assert self._runner is not None
        self._up_at = time.monotonic()
        self.stage = ""
        self.on_up(self._max_batch)
        if self._broken_at_start:
            self.replace(self._broken_at_start)

    async def _restart(self) -> None:
        lost_at = time.monotonic()
        while True:
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** (self._failures - 1), _LONGEST_PAUSE_S))
            await self._until_gone()
            if await self._has_started():
                break
            self._failures += 1
        seconds = time.monotonic() - lost_at
        event = Event("policy_replaced", policy=self._name, ms=seconds * 1e3)
        log.warning("%s is back after %.1f s", self._name, seconds, event=event)
        self._take_up()

    async def _has_started(self) -> bool:
        try:
            spec = await self._start_runner(self._note_stage)
            assert self._spec is not None
            if not is_same(replace(spec, max_batch=self._spec.max_batch), self._spec):
                raise PolicyFailed("it came back with another spec than its sessions were told; restart the server")
            self._note_max_batch(spec.max_batch)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a stranger's loader: even sys.exit() must not end the server
            event = Event("policy_not_replaced", policy=self._name)
            log.error("%s could not be replaced: %s: %s", self._name, type(error).__name__, error, event=event)
            if self._runner is not None:
                self._abandoned.append(self._runner.abandon())
            return False
        return True

    def _note_max_batch(self, max_batch: int) -> None:
        if max_batch != self._max_batch:
            log.warning("%s now takes %d at a time, before %d", self._name, max_batch, self._max_batch)
        self._max_batch = max_batch

    def _note_stage(self, stage: str) -> None:
        log.debug("%s: %s", self._name, stage, event=Event("stage", policy=self._name))

    async def _until_gone(self) -> None:
        """Wait until few enough of the runners that were let go are still there."""
        patience_s: float | None = _TELL_S
        while len(left := [one for one in self._abandoned if not one.done()]) >= self._max_abandoned:
            done, _ = await asyncio.wait(left, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                patience_s = None
                told = (
                    "%s stays down until one of its %d calls that hang returns; restart the server, and have a look at "
                )
                told += "--isolate process, where a policy that hangs is killed"
                log.error(told, self._name, len(left), event=Event("policy_not_replaced", policy=self._name))
        self._abandoned = left


def _gone() -> Runner:
    """What makes a runner once all is closed."""
    raise AssertionError("a policy that is closed makes no runner")
