"""Serves a training run while it trains: its newest complete checkpoint takes over as it appears.

A checkpoint is taken when two looks in a row have found the same files. A run that is deleted is told, and the last
checkpoint goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.recipe import Newest
from policyserve.engine.swaps import Swap, When
from policyserve.server.exchange import swapping
from policyserve.server.served import Served

log = Log(__name__)

# The newest complete checkpoint, None while there is none; raises ConfigError for a run that is gone. It reads files.
Look: TypeAlias = Callable[[], "Newest | None"]


class Follower:
    """Looks for a newer checkpoint every `every_s` seconds and has `take` serve it.

    first: what is served already; None: there is no complete one yet. take: raises what keeps a checkpoint from taking
    over, and is not asked for that one again. may_take: whether one can be exchanged now. step: of the checkpoint that
    was taken last; None: none was. name: of the policy, where there are several.
    """

    def __init__(
        self,
        look: Look,
        take: Callable[[Newest], Awaitable[object]],
        may_take: Callable[[], bool],
        first: Newest | None,
        every_s: float,
        name: str = "",
    ) -> None:
        self.step = None if first is None else first.step
        self._run = f"{name}: " if name else ""
        self._look, self._take, self._may_take, self._every_s = look, take, may_take, every_s
        self._taken = first
        self._seen: Newest | None = None  # at the last look
        self._is_lost = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; there is an event loop."""
        told = "the first checkpoint is waited for" if self.step is None else f"step {self.step} is followed"
        log.info("%s%s", self._run, told, event=Event("run_followed"))
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._look_once()
            except Exception as error:  # of an adapter that is another package's, or a disk
                self._tell_lost(error)

    async def _look_once(self) -> None:
        try:
            found = await asyncio.to_thread(self._look)
            if found is None and self._taken is None:
                return
            if found is None:
                raise ConfigError("the run has no complete checkpoint any more")
        except ConfigError as error:
            self._tell_lost(error)
            return
        self._is_lost = False
        is_settled, self._seen = found == self._seen, found
        if found == self._taken or not is_settled or not self._may_take():
            return
        self._taken = found  # whether or not it can be served: it is not tried again
        try:
            await self._take(found)
            self.step = found.step
        except PolicyserveError as error:
            log.debug("%sstep %d is not served: %s", self._run, found.step, error)  # the engine has told it

    def _tell_lost(self, error: Exception) -> None:
        if not self._is_lost:
            self._is_lost = True
            goes_on = "the first one is waited for" if self.step is None else f"step {self.step} goes on"
            told = "%s%s, since newer ones cannot be looked for: %s"
            log.warning(told, self._run, goes_on, error, event=Event("run_lost"))


def follower_of(
    served: Served, look: Look, first: Newest | None, title: str = "", *, when: When = "now", every_s: float = 1.0
) -> Follower:
    """What follows a training run by exchanging a policy; the arguments are those of Server.follow().

    Raises ConfigError where the policy cannot be exchanged.
    """
    engine, next_policy = swapping(served.engine, served.name), served.next_policy
    assert next_policy is not None, "it is there for what the catalogue has made"
    if first is not None:
        engine.title = f"{title} step {first.step}".strip()

    async def take(found: Newest) -> None:
        named = next_policy(found.recipe, f"{title} step {found.step}".strip())
        await engine.swap(named, Swap(when))

    def may_take() -> bool:
        return not engine.refusal() and not (when == "next-session" and engine.staying)

    return Follower(look, take, may_take, first, every_s, served.name if served.is_named else "")
