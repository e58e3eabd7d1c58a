"""Runs a policy in a thread of its own, so that the event loop never waits for it.

The thread loads the policy, warms every batch bucket, and then answers one batch at a time. What a policy can prepare
of the next batch meanwhile is done in a second thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias

from policyserve.core.effects import Outcome
from policyserve.core.errors import failed
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.printable import error_text
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import Answering, LoadPolicy, OnStage, Task, warm_up
from policyserve.engine.inline import InlinePolicy
from policyserve.engine.preparing import Prepared, PreparingThread

__all__ = ["LoadPolicy", "OnBroken", "OnDone", "OnStage", "Runner", "Task", "ThreadRunner"]

log = Log(__name__)

OnDone: TypeAlias = Callable[[Sequence[Outcome]], None]
OnBroken: TypeAlias = Callable[[str], None]


class Runner(Protocol):
    """A place where one policy runs, once. All methods are called in the event loop's thread.

    inline: the policy while it may run in the event loop (see inline.py), else None. abandon: let go of what may hang;
    the future is done when nothing of it is left. take_back: a session was told another outcome than the answer to its
    last request, so its policy state must be as before that request, also where the answer is still to come.
    on_broken is called, at most once, when it can answer nothing more, with the reason; what ran is failed after that.
    sources: the files of people's own code that its process has loaded; empty where that is the server's process.
    """

    on_broken: OnBroken | None
    sources: Sequence[str]

    @property
    def inline(self) -> InlinePolicy | None: ...

    async def start(self, on_stage: OnStage) -> PolicySpec: ...
    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None: ...
    def take_back(self, session: Hashable) -> None: ...
    def forget(self, session: Hashable) -> None: ...
    async def close(self, timeout_s: float) -> None: ...
    def abandon(self) -> asyncio.Future[None]: ...


class ThreadRunner:
    """Runs a policy in one thread. `load` is called there too; it may take minutes and call on_stage.

    may_inline: whether a policy that declares itself inline may run in the event loop, see inline.py.
    """

    def __init__(self, load: LoadPolicy, *, may_inline: bool = True) -> None:
        self.on_broken: OnBroken | None = None
        self.sources: Sequence[str] = ()
        self._load = load
        self._may_inline = may_inline
        self._calls: SimpleQueue[Callable[[Answering], None] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._is_abandoned = False
        self._name = ""  # the policy's
        self._numbers = 0  # of batches
        self._unanswered = 0  # of them, as the event loop knows
        self._preparing: PreparingThread | None = None  # for a policy that prepares
        self.inline: InlinePolicy | None = None

    async def start(self, on_stage: OnStage) -> PolicySpec:
        """Load and warm the policy; returns its spec. Raises what loading raised, PolicyFailed if warming up did."""
        loop = self._loop = asyncio.get_running_loop()
        loaded: asyncio.Future[PolicySpec] = loop.create_future()
        self._ended = loop.create_future()
        # A daemon: a policy that hangs must not keep the process from ending.
        threading.Thread(target=self._run, args=(on_stage, loaded), name="policy", daemon=True).start()
        return await loaded

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        """Answer a batch in the thread; `on_done` is called in the event loop with one outcome per task, in order."""
        self._numbers += 1
        self._unanswered += 1
        number, preparing = self._numbers, self._preparing
        ahead = preparing.submit(number, batch) if preparing is not None and self._unanswered > 1 else None

        def call(answering: Answering) -> None:
            started_at = time.monotonic()
            prepared = None if preparing is None else preparing.take(number, batch, ahead)
            if self._is_abandoned:
                return  # meanwhile
            outcomes = self._answers(answering, batch, prepared, started_at)
            if answering.broken:
                self._in_loop(self._tell_broken, answering.broken)
            self._in_loop(self._end, on_done, outcomes)

        self._calls.put(call)

    def take_back(self, session: Hashable) -> None:
        """Undo what a session's last request did to its policy state, after the batch that may be running."""
        if self.inline is not None:  # its next call may come before the thread's turn
            self.inline.take_back(session)
        self._calls.put(lambda answering: answering.take_back(session))

    def forget(self, session: Hashable) -> None:
        """Drop a session's policy state, after the batch that may be running."""
        if self.inline is not None:  # its next call may come before the thread's turn
            self.inline.forget(session)
        self._calls.put(lambda answering: answering.forget(session))

    async def close(self, timeout_s: float) -> None:
        """Close the policy after the calls before; gives up waiting (and leaves the thread) after timeout_s."""
        self.inline = None
        self._calls.put(None)
        if self._ended is not None:
            await asyncio.wait([self._ended], timeout=timeout_s)

    def abandon(self) -> asyncio.Future[None]:
        """Leave the thread to itself; the future is done when the thread has ended, which may be never.

        The policy is not closed: it may be an object that its next runner is given again.
        """
        assert self._ended is not None, "start it first"
        self._is_abandoned = True
        self.inline = None
        self._calls.put(None)
        return self._ended

    def _run(self, on_stage: OnStage, loaded: asyncio.Future[PolicySpec]) -> None:
        try:
            policy = self._load(on_stage)
            answering = Answering(policy)
            warm_up(policy, on_stage)
        except BaseException as error:  # a stranger's loader: whatever it raises belongs to start()'s caller
            self._in_loop(_settle, loaded, _as_loading_error(error))
            self._in_loop(_settle, self._ended, None)
            return
        spec = answering.spec
        self._name = spec.name
        if spec.inline and self._may_inline:
            self.inline = InlinePolicy(answering, self._withdraw_inline, self._tell_broken)
        if answering.prepares:
            self._preparing = PreparingThread(answering.prepare)
            self._preparing.start()
        self._in_loop(_settle, loaded, spec)
        while (call := self._next_call(answering)) is not None and not self._is_abandoned:
            call(answering)
            call = None  # it holds its batch's observations, which would stay until the next call comes
        if self._preparing is not None:
            self._preparing.close()
        try:
            if not self._is_abandoned:
                policy.close()
        except BaseException as error:  # a stranger's close: the server ends all the same
            event = Event("policy_close_failed", policy=self._name)
            log.error("policy %s failed to close: %s", self._name, error_text(error), event=event, cause=error)
        # Here and not in a thread that the interpreter's end overtakes: some frameworks abort when freed that late.
        self._preparing = None
        del policy, answering, call
        self._in_loop(_settle, self._ended, None)

    def _next_call(self, answering: Answering) -> Callable[[Answering], None] | None:
        while self._calls.empty() and answering.settle():
            pass
        return self._calls.get()

    def _answers(
        self, answering: Answering, batch: Sequence[Task], prepared: Prepared | None, started_at: float
    ) -> Sequence[Outcome]:
        try:
            return answering.answer(batch, prepared, started_at)
        except BaseException as error:  # no memory for our own part: the thread must go on, since others wait for it
            return [failed(f"{self._name}:", error)] * len(batch)

    def _end(self, on_done: OnDone, outcomes: Sequence[Outcome]) -> None:
        self._unanswered -= 1
        on_done(outcomes)

    def _withdraw_inline(self, took_ms: float) -> None:
        self.inline = None
        told = "%s is inline but took %.1f ms: from now on it runs in a thread"
        event = Event("policy_slow", policy=self._name, ms=took_ms)
        log.warning(told, self._name, took_ms, event=event)

    def _tell_broken(self, reason: str) -> None:
        if self.on_broken is not None and not self._is_abandoned:
            self.on_broken(
                f"{reason} (this may last until the server's process ends: --isolate process gives the policy one of "
                "its own, which is replaced)"
            )

    def _in_loop(self, function: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop is closed: the server ended while a policy still ran, and nobody waits for this answer.
            log.debug("an answer came after the server's end")


def _as_loading_error(error: BaseException) -> Exception:
    """What a loader raised, as a future and a task can hold it: neither may get StopIteration or an exit."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return failed("loading raised", error)


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
