"""A replica, which Ray Serve runs on a node: one policy, which answers batches of the groups of all edges.

It knows nothing of order, since of each session one request is on its way at a time. What the policy remembers of a
session travels with its requests, or stays here; then each edge brings a token in its place (residents.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from policyserve.core.arrays import Array
from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.log import Log
from policyserve.core.observer import Observer, Observers
from policyserve.core.policy import PerSessionPolicy, Policy, ResettablePolicy
from policyserve.core.recipe import OnStage
from policyserve.engine.answering import KEPT, LoadPolicy, Task
from policyserve.engine.batcher import Batcher
from policyserve.engine.local import LocalEngine
from policyserve.ray.config import ReplicaSettings
from policyserve.ray.groups import (
    Answers,
    Described,
    OnAnswer,
    Parts,
    read_group,
    writable,
    write_answers,
    write_described,
)
from policyserve.ray.residents import Residents

log = Log(__name__)

_SILENT_S = 60.0  # a session that asked nothing for so long is forgotten: its edge may be gone, and tells nobody
_SILENT_RESIDENT_S = 3600.0  # the same where its state is lost with that
_SWEEP_S = 10.0
_CLOSE_S = 5.0


class Replica(Observer):
    """One copy of the policy that `load` brings. version: of the policy, told with each answer.

    digest: of its spec, once it has started. load: groups that have no answers yet.
    """

    def __init__(self, load: LoadPolicy, version: str, settings: ReplicaSettings) -> None:
        self._version = version
        self._settings = settings
        self._residents = Residents() if settings.stays else None
        load = load if settings.stays else partial(_movable, load)
        self._engine = LocalEngine(load, self._batcher, settings.request_timeout_s)
        self._described: Described | None = None
        self.digest = ""
        self.load = 0
        self._broken = ""
        self._seen_at: dict[Hashable, float] = {}
        self._swept_at = 0.0

    async def start(self) -> None:
        """Load and warm the policy; raises what loading raised."""
        observers = Observers(lambda _, error: log.error("%s", error))
        observers.add(self)
        spec = await self._engine.start(lambda stage: log.info("%s", stage), observers)
        self._described = Described(spec, self._version, self._settings.stays)
        self.digest = self._described.digest

    async def describe(self) -> bytes:
        """The spec and the version, as read_described() reads them."""
        assert self._described is not None
        return write_described(self._described)

    async def infer(self, message: bytes, arrays: Array) -> Parts:
        """Answer a group. A group of a session that was told another spec has no outcomes."""
        told: asyncio.Future[Parts | Exception] = asyncio.get_running_loop().create_future()
        self.answer(message, arrays, lambda answer: None if told.done() else told.set_result(answer))
        answer = await told
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, message: bytes, arrays: Array, on_answer: OnAnswer) -> None:
        """As infer(), by a callback, which is told what there is instead of an answer, too.

        A coroutine for each group, and one for each of its requests, would cost turns of the event loop.
        """
        self.load += 1

        def end(outcomes: Sequence[Outcome]) -> None:
            self.load -= 1
            on_answer(self._written(outcomes))

        try:
            group = read_group(message, writable(arrays))
        except Exception as error:  # an edge of another version of this package
            self.load -= 1
            on_answer(error)
            return
        self._end_lives(group.forgotten)
        if group.digest == self.digest and group.tasks:
            self._submit(group.tasks, end)
        else:
            end([])

    async def check_health(self) -> None:
        """Raise RuntimeError if this process should be replaced: its policy broke or hangs, or a GPU is lost to it."""
        if self._broken:
            raise RuntimeError(f"the policy broke: {self._broken}")

    async def close(self) -> None:
        """Close the policy."""
        await self._engine.close(_CLOSE_S)

    def on_policy_replaced(self, name: str, reason: str) -> None:
        """The policy's thread hangs or has lost its GPU: a new process is better than a new thread."""
        self._broken = reason

    def _written(self, outcomes: Sequence[Outcome]) -> Parts | Exception:
        answers = Answers(outcomes, self.digest, self._version, self._broken)
        try:
            return write_answers(answers, time.monotonic(), self._settings.max_state_kib)
        except Exception as error:  # a bug: whoever asked is told
            return error

    def _submit(self, tasks: Sequence[Task], on_outcomes: Callable[[Sequence[Outcome]], None]) -> None:
        """Have each task answered; `on_outcomes` is told all outcomes at once, in the tasks' order."""
        outcomes: dict[int, Outcome] = {}
        now = time.monotonic()

        def settle(place: int, outcome: Outcome) -> None:
            outcomes[place] = self._with_token(tasks[place].session, outcome)
            if len(outcomes) == len(tasks):
                on_outcomes([outcomes[one] for one in range(len(tasks))])

        self._forget_silent(now)
        for place, task in enumerate(tasks):
            try:
                self._engine.submit(self._admitted(task, now), now, partial(settle, place))
            except PolicyserveError as error:
                settle(place, error)

    def _admitted(self, task: Task, now: float) -> Task:
        """The task as the engine takes it; raises PolicyLost where what was remembered of its session is not here."""
        if self._residents is None:
            self._seen_at[task.session] = now
            return task
        if self._residents.admit(task.session, task.state, now):
            self._engine.forget(task.session)  # what a life before has left
        return task._replace(state=KEPT)

    def _with_token(self, session: Hashable, outcome: Outcome) -> Outcome:
        if self._residents is None or not isinstance(outcome, Answered):
            return outcome
        return outcome._replace(chunk=outcome.chunk._replace(state=self._residents.token(session)))

    def _end_lives(self, forgotten: Sequence[tuple[Hashable, Any]]) -> None:
        """Edges say that these sessions have ended."""
        for session, token in forgotten:
            if self._residents is not None and self._residents.forget(session, token):
                self._engine.forget(session)

    def _forget_silent(self, now: float) -> None:
        if now - self._swept_at < _SWEEP_S:
            return
        self._swept_at = now
        for session in self._silent(now):
            self._engine.forget(session)

    def _silent(self, now: float) -> Sequence[Hashable]:
        """Sessions that are forgotten now."""
        usual_s = 2 * self._settings.request_timeout_s
        if self._residents is not None:
            return self._residents.forget_silent(now - max(_SILENT_RESIDENT_S, usual_s))
        silent = [one for one, at in self._seen_at.items() if now - at > max(_SILENT_S, usual_s)]
        for session in silent:
            del self._seen_at[session]
        return silent

    def _batcher(self, max_batch: int) -> Batcher:
        settings = self._settings
        return Batcher(max_batch, settings.max_queue, settings.max_wait_s, settings.max_queue_ms / 1e3)


def _movable(load: LoadPolicy, on_stage: OnStage) -> Policy:
    """Load a policy whose sessions may go to any replica; raises ConfigError for another one."""
    policy = load(on_stage)
    if isinstance(policy, (ResettablePolicy, PerSessionPolicy)):
        told = "a policy that remembers by itself cannot have its sessions on several machines"
        cure = "return what it remembers as ActionChunk.state, or deploy it with --session-state stays"
        raise ConfigError(f"{told}; {cure}")
    return policy
