"""An engine whose policy is exchanged while it serves: the next one loads behind it, then takes over.

Until the next policy is loaded and warm the one before answers, and it stays if that fails. It takes over between two
batches, and sessions stay open. Where there is not enough memory for both, the one before is unloaded first, and
requests wait meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import replace

from policyserve.core.callbacks import do_nothing
from policyserve.core.errors import ConfigError, NotReady, PolicyChanged, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observers
from policyserve.core.spec import PolicySpec
from policyserve.core.spec_changes import spec_changes
from policyserve.engine.answering import OnStage, Task
from policyserve.engine.engine import Change, Engine, OnOutcome
from policyserve.engine.holding import HeldRequests
from policyserve.engine.stages import from_any_thread
from policyserve.engine.swaps import NextPolicy, Swap, Swapped
from policyserve.engine.versions import CLOSE_S, Versions

log = Log(__name__)


class SwappingEngine:
    """An Engine around the current policy's. first: the policy to begin with.

    request_timeout_s, max_queue: as long and as many may requests wait while there is no policy to answer them.
    on_change: told of a policy that takes over, before it does; what it raises keeps that one out. version, title: of
    the policy that new sessions get.
    """

    def __init__(self, first: NextPolicy, request_timeout_s: float, max_queue: int) -> None:
        self.on_change: Callable[[Change], None] = do_nothing
        self.version = 1
        self._request_timeout_s, self._max_queue = request_timeout_s, max_queue
        self._policy = first
        self._before: NextPolicy | None = None  # the one before, for back()
        self._versions: Versions[Engine] = Versions(first.make())
        self._numbers: dict[Engine, int] = {self._versions.current: 1}
        self._spec: PolicySpec | None = None  # once one has loaded
        self._has_settled = False  # the first has loaded, or never will
        self._swapping: asyncio.Task[Swapped] | None = None
        self._told = ("", "", 0.0)  # the policy that is loaded, what its loading is at, since when
        self._held: HeldRequests | None = None  # while there is no policy
        self._lost = ""  # why there is none, and none is loading
        self._is_closed = False

    @property
    def title(self) -> str:
        """See above; what the policy calls itself, where nobody gave it one."""
        return self._policy.title or (self._spec.name if self._spec is not None else "the policy")

    @title.setter
    def title(self, title: str) -> None:
        self._policy = replace(self._policy, title=title)

    @property
    def before(self) -> str | None:
        """The title of the policy that back() returns to; None: there is none."""
        return None if self._before is None else self._before.title

    @property
    def swapping(self) -> str:
        """What is loaded behind the policy, how far it is and for how long; empty: nothing is."""
        if self._swapping is None:
            return ""
        title, stage, since = self._told
        return f"{title}, {stage or 'loading'}, since {time.monotonic() - since:.0f} s"

    @property
    def stage(self) -> str:
        """See Engine."""
        if self._held is not None:
            return f"exchanging the policy: {self.swapping}"
        return self._lost or self._versions.current.stage

    @property
    def is_working(self) -> bool:
        """See Engine."""
        return self._versions.is_working

    @property
    def load(self) -> int:
        """See Engine."""
        return self._versions.load + (self._held.load if self._held is not None else 0)

    @property
    def staying(self) -> int:
        """Sessions that end on the policy before this one."""
        return self._versions.staying

    def version_of(self, session: Hashable) -> int:
        """See VersionedEngine."""
        if self._held is not None:
            return self.version + 1
        return self._numbers.get(self._versions.of(session), self.version)

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        """See Engine."""
        self._observers = observers
        try:
            self._spec = await self._versions.current.start(on_stage, observers)
        finally:
            self._has_settled = True
        return self._spec

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """See Engine."""
        if self._held is not None:
            self._held.submit(task, arrived_at, on_outcome)
        elif self._lost:
            raise NotReady(self._lost)
        else:
            self._versions.submit(task, arrived_at, on_outcome)

    def forget(self, session: Hashable) -> None:
        """See Engine."""
        if self._held is not None:
            self._held.forget(session)
        self._versions.forget(session)

    async def retired(self) -> None:
        """Wait until the policies before are closed, but for those that sessions stay with."""
        await self._versions.retired()

    async def drained(self) -> None:
        """See Engine."""
        if self._held is not None:
            await self._held.drained()
        await self._versions.drained()

    async def close(self, timeout_s: float) -> None:
        """See Engine."""
        self._is_closed = True
        if self._swapping is not None:
            self._swapping.cancel()
            await asyncio.wait([self._swapping])
        await self._versions.close(timeout_s)

    async def swap(self, policy: NextPolicy, how: Swap | None = None) -> Swapped:
        """Have another policy take over; returns once it has, or raises why it has not, and the one before goes on.

        Raises ConfigError where the policy cannot be exchanged now, or has another spec (the keys that differ are
        told), and what loading raised.
        """
        self._check_may_swap()
        how = how or Swap()
        if how.when == "next-session" and self.staying:
            told = f"{self.staying} sessions still end on the policy before {self.title}"
            raise ConfigError(f"{told}: wait for them, or take them over with when=now")
        self._told = (policy.title, "", time.monotonic())
        self._swapping = asyncio.get_running_loop().create_task(self._swap(policy, how))
        try:
            return await self._swapping
        except asyncio.CancelledError:
            if self._is_closed:
                raise ConfigError(f"{policy.title} does not take over: the server is stopping") from None
            raise
        finally:
            self._swapping = None

    async def back(self, how: Swap | None = None) -> Swapped:
        """Return to the policy before, which is loaded again; raises what swap() raises, and if there is none."""
        self._check_may_swap()
        if self._before is None:
            raise ConfigError("there is no policy to go back to: this one is the first")
        if not self._before.may_come_back:
            told = "was an object of the program's, which is closed: hand over another one"
            raise ConfigError(f"{self._before.title} {told}")
        return await self.swap(self._before, how)

    def refusal(self) -> str:
        """Why no policy can be exchanged now; empty if one can."""
        if self._is_closed:
            return "the server is stopping"
        if not self._has_settled:
            return f"the first policy is not there yet ({self.stage or 'loading'}): wait until it answers"
        if self._swapping is not None:
            return f"another policy is on its way already: {self.swapping}"
        return ""

    def _check_may_swap(self) -> None:
        if refusal := self.refusal():
            raise ConfigError(refusal)

    async def _swap(self, policy: NextPolicy, how: Swap) -> Swapped:
        log.info("loading %s, to take over from %s", policy.title, self.title, event=Event("policy_coming"))
        try:
            if how.unload_first:
                await self._unload()
            swapped = await self._load(policy, how)
        except BaseException as error:  # a stranger's loader, or the server stops
            if how.unload_first and not isinstance(error, asyncio.CancelledError):
                await self._restore(self._policy, error)
            event = Event("policy_not_swapped", policy=policy.title)
            why = "the server is stopping" if isinstance(error, asyncio.CancelledError) else error
            log.error("%s does not take over: %s", policy.title, why, event=event)
            raise
        event = Event("policy_swapped", policy=swapped.spec.name, ms=swapped.seconds * 1e3)
        log.info("%s answers after %.1f s, version %d", policy.title, swapped.seconds, swapped.version, event=event)
        return swapped

    async def _load(self, policy: NextPolicy, how: Swap) -> Swapped:
        """Load a policy behind the current one, and have it take over."""
        began_at = time.monotonic()
        engine = self._versions.coming = policy.make()
        try:
            spec = await self._started(engine, how.timeout_s)
            changes = tuple(spec_changes(self._spec, spec)) if self._spec is not None else ()
            if changes and not how.force:
                told = "it has another spec, which sessions were not told (force closes them, to connect again)"
                raise ConfigError(f"{told}: {'; '.join(changes)}")
            closing = PolicyChanged("another policy with another spec took over: connect again") if changes else None
            self.on_change(Change(spec, closing, how.when == "now"))
        except BaseException:
            await engine.close(CLOSE_S)
            raise
        finally:
            self._versions.coming = None
        self._before, self._policy = replace(self._policy, title=self.title), policy
        self._take_over(engine, spec, sessions_stay=how.when == "next-session" and not changes)
        return Swapped(self.version, policy.title, spec, time.monotonic() - began_at, changes)

    async def _started(self, engine: Engine, timeout_s: float | None) -> PolicySpec:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(
                engine.start(from_any_thread(loop, self._note_stage), self._observers), timeout_s
            )
        except asyncio.TimeoutError:
            raise ConfigError(f"it has not loaded within {timeout_s:g} s (timeout_s); {self._told[1]}") from None

    def _take_over(self, engine: Engine, spec: PolicySpec, *, sessions_stay: bool = False) -> None:
        self.version += 1
        self._spec, self._lost = spec, ""
        self._versions.take_over(engine, sessions_stay=sessions_stay)
        self._numbers = {one: self._numbers[one] for one in self._versions.all if one in self._numbers}
        self._numbers[engine] = self.version
        held, self._held = self._held, None
        for task, arrived_at, on_outcome in held.take() if held is not None else ():
            try:
                self._versions.submit(task, arrived_at, on_outcome)
            except PolicyserveError as error:
                on_outcome(error)

    async def _unload(self) -> None:
        """Close the current policy, once what was submitted is answered; requests wait from now on."""
        self._held = HeldRequests(self._request_timeout_s, self._max_queue, self._observers)
        self._note_stage("unloading the one before")
        await self._versions.drained()
        await self._versions.current.close(CLOSE_S)

    async def _restore(self, policy: NextPolicy, error: BaseException) -> None:
        """Load the policy again that was unloaded for one that could not take over."""
        self._note_stage(f"it failed; loading {policy.title} again")
        engine = self._versions.coming = policy.make()
        try:
            if not policy.may_come_back:
                raise ConfigError("it was an object of the program's, which is closed")
            self._take_over(engine, await engine.start(_ignore, self._observers))
        except BaseException as second:
            await engine.close(CLOSE_S)
            self._lost = f"there is no policy: {error}; the one before cannot be loaded again: {second}; swap one in"
            held, self._held = self._held, None
            for _, _, on_outcome in held.take() if held is not None else ():
                on_outcome(NotReady(self._lost))
            if isinstance(second, asyncio.CancelledError):
                raise
        finally:
            self._versions.coming = None

    def _note_stage(self, stage: str) -> None:
        title, _, since = self._told
        self._told = (title, stage, since)
        log.debug("%s: %s", title, stage, event=Event("stage"))


def _ignore(_stage: str) -> None:
    """Of a policy that is loaded again."""
