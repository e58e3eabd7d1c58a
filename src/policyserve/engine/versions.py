"""The engines of one server's policies, one version after the other: who answers whom, and when one before is closed.

Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from policyserve.core.callbacks import do_nothing
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.engine.answering import Task
from policyserve.engine.engine import Change, Engine, OnOutcome

log = Log(__name__)

CLOSE_S = 2.0  # for a policy that nobody asks any more

EngineT = TypeVar("EngineT", bound=Engine)


class Versions(Generic[EngineT]):
    """Gives each request to one of the versions: to the current one, or to the one that its session stays with.

    coming: the version that is being loaded, if there is one; it is closed with the others.
    """

    def __init__(self, first: EngineT) -> None:
        self.current = first
        self.coming: EngineT | None = None
        self._homes: dict[Hashable, EngineT] = {}  # the version that answers a session, once it has asked
        self._staying: dict[EngineT, int] = {}  # versions before, and how many sessions end on each
        self._retiring: dict[EngineT, asyncio.Task[None]] = {}

    @property
    def all(self) -> list[EngineT]:
        """Those that answer, the current one first."""
        return [self.current, *self._staying, *self._retiring]

    @property
    def is_working(self) -> bool:
        """Whether a policy of any version is at work, or being loaded."""
        return self.coming is not None or any(engine.is_working for engine in self.all)

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        return sum(engine.load for engine in self.all)

    @property
    def staying(self) -> int:
        """Sessions, or episodes of them, that end on a version before the current one."""
        return sum(self._staying.values())

    def of(self, session: Hashable) -> EngineT:
        """The version that answers this session."""
        return self._homes.get(session, self.current)

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """See Engine."""
        home = self._homes.get(task.session)
        if home is None:
            home = self._homes[task.session] = self.current
        home.submit(task, arrived_at, on_outcome)

    def forget(self, session: Hashable) -> None:
        """See Engine."""
        for engine in self.all:
            engine.forget(session)
        home = self._homes.pop(session, None)
        if home in self._staying:
            self._staying[home] -= 1
            if not self._staying[home]:
                del self._staying[home]
                self._retire(home)

    def take_over(self, engine: EngineT, *, sessions_stay: bool = False) -> None:
        """Give requests to this version from now on; the ones before are closed when they have answered theirs.

        sessions_stay: sessions that have asked already are answered by the version before until they are forgotten.
        """
        before, self.current = self.current, engine
        count = sum(home is before for home in self._homes.values())
        if sessions_stay and count:
            self._staying[before] = count
            return
        self._retire(before)
        if not sessions_stay:
            self._homes = dict.fromkeys(self._homes, engine)
            for one in self._staying:
                self._retire(one)
            self._staying.clear()

    async def retired(self) -> None:
        """Wait until every version that nobody is left with is closed."""
        if self._retiring:
            await asyncio.wait(list(self._retiring.values()))

    async def drained(self) -> None:
        """See Engine."""
        for engine in list(self.all):  # one by one: where nothing waits, this takes no turn of the loop
            await engine.drained()

    async def close(self, timeout_s: float) -> None:
        """Close all that are there."""
        engines = [*self.all, *([self.coming] if self.coming is not None else [])]
        retiring = list(self._retiring.values())
        for task in retiring:
            task.cancel()
        if retiring:
            await asyncio.wait(retiring)
        await asyncio.gather(*(engine.close(timeout_s) for engine in engines))

    def _retire(self, engine: EngineT) -> None:
        self._retiring[engine] = asyncio.get_running_loop().create_task(self._end(engine))

    async def _end(self, engine: EngineT) -> None:
        try:
            await engine.drained()  # every request has its time-out
            await engine.close(CLOSE_S)
        except Exception as error:  # an engine may be another package's
            log.error("a policy that was exchanged did not close", event=Event("policy_close_failed"), cause=error)
        finally:
            self._retiring.pop(engine, None)


class VersionsEngine(Generic[EngineT]):
    """The base class of ChangingEngines that hand each request to one of their versions, and do nothing else with it.

    What derives from it brings start(), close() and the versions that follow the first.
    """

    def __init__(self, first: EngineT) -> None:
        self.on_change: Callable[[Change], None] = do_nothing
        self._versions = Versions(first)

    @property
    def stage(self) -> str:
        """See Engine."""
        return self._versions.current.stage

    @property
    def is_working(self) -> bool:
        """See Engine."""
        return self._versions.is_working

    @property
    def load(self) -> int:
        """See Engine."""
        return self._versions.load

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """See Engine."""
        self._versions.submit(task, arrived_at, on_outcome)

    def forget(self, session: Hashable) -> None:
        """See Engine."""
        self._versions.forget(session)

    async def drained(self) -> None:
        """See Engine."""
        await self._versions.drained()
