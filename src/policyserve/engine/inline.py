"""When a policy runs in the event loop, and not in its thread or process.

It runs there if all of this is true:
1. Its spec says `inline`: a call costs less than a hop to a thread and back.
2. It is in this process, and the only replica (`ThreadRunner` then makes an `InlinePolicy`).
3. Its calls have been quick: it is withdrawn, for good, after three that took over 1 ms a task, close together.
4. Nothing waits for the policy or runs elsewhere, and the request is no client's own batch (`InlineRequests`).

Such a request is answered at once, or at the end of the event loop's turn, together with all others that were read in
that turn: `Turns` expects which of the two is quicker. asyncio and uvloop both run the callbacks of all sockets that
are ready before what call_soon() was given meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from policyserve.core.effects import Answered, Outcome
from policyserve.core.observer import Observers
from policyserve.engine.answering import Answering, Task
from policyserve.engine.batcher import Batcher
from policyserve.engine.engine import OnOutcome, Waiting, deliver

_LIMIT_MS = 1.0
_SLOW_CALL, _TOO_SLOW = 10, 20  # three slow calls, unless some thirty quick ones lie between them
_TRUST = 8  # turns of one request, after a shared one, before waiting stops
_PAUSE = 16  # switches from one session to another before waiting is tried again


class InlinePolicy:
    """A policy that may run in the event loop. All methods are called in the event loop's thread.

    on_slow: called with the milliseconds of the call that was one too many. on_broken: called with the reason, when the
    policy can answer nothing more.
    """

    def __init__(
        self, answering: Answering, on_slow: Callable[[float], None], on_broken: Callable[[str], None]
    ) -> None:
        self._answering = answering
        self._on_slow = on_slow
        self._on_broken = on_broken
        self._slowness = 0  # up with each slow call, down with each quick one

    def answer_one(self, task: Task) -> Outcome:
        """The task's outcome; never raises."""
        outcome = self._answering.answer_one(task)
        self._note(outcome, 1)
        return outcome

    def answer(self, batch: Sequence[Task]) -> Sequence[Outcome]:
        """One outcome per task, in order; never raises."""
        outcomes = self._answering.answer(batch)
        self._note(outcomes[0], len(batch))
        return outcomes

    def take_back(self, session: Hashable) -> None:
        """Undo what a session's last request did to its policy state."""
        self._answering.take_back(session)

    def forget(self, session: Hashable) -> None:
        """Drop a session's policy state."""
        self._answering.forget(session)

    def _note(self, first: Outcome, count: int) -> None:
        # One slow call tells nothing: a machine that takes the core away makes any call slow.
        if self._answering.broken:
            self._on_broken(self._answering.broken)
        elif isinstance(first, Answered):
            took_ms = (first.ended_at - first.started_at) * 1e3 / count
            if took_ms > _LIMIT_MS:
                self._slowness += _SLOW_CALL
                if self._slowness > _TOO_SLOW:
                    self._on_slow(took_ms)
            elif self._slowness:
                self._slowness -= 1


class HasInline(Protocol):
    """A runner, as seen from here. inline: its policy while that may run in the event loop, else None."""

    @property
    def inline(self) -> InlinePolicy | None: ...


class InlineRequests:
    """The requests that a scheduler need not queue.

    batcher: the queue, which must be empty. queue: takes a request that could not be answered here after all.
    """

    def __init__(
        self,
        runner: HasInline,
        batcher: Batcher,
        observers: Observers,
        queue: Callable[[Task, float, OnOutcome], None],
    ) -> None:
        self.waiting: dict[Hashable, Waiting] = {}  # for the turn's end, one request for each session
        self._runner = runner
        self._batcher = batcher
        self._observers = observers
        self._queue = queue
        self._turns = Turns()
        self._loop = asyncio.get_running_loop()
        self._is_end_near = False  # the event loop has been asked to call _end_soon

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> bool:
        """Answer a request, now or at the turn's end; False: it belongs in the queue."""
        if self.waiting and (task.session in self.waiting or task.batch_size is not None):
            self.end_turn()  # one session's requests run one after the other, and the policy runs in one place
        policy = self._runner.inline
        if policy is None or task.batch_size is not None or self._batcher.running or self._batcher.queued:
            return False
        if self._turns.waits(task.session):
            self._wait((task, arrived_at, on_outcome))
        else:
            on_outcome(self._answer_one(policy, task))
        return True

    def end_turn(self) -> None:
        """Answer what waits for the turn's end, now."""
        if not self.waiting:
            return
        waiting, self.waiting = list(self.waiting.values()), {}
        self._turns.on_end(len(waiting))
        policy = self._runner.inline
        if policy is None:  # withdrawn or lost since
            for request in waiting:
                self._queue(*request)
            return
        outcomes = self._answer(policy, [task for task, _, _ in waiting])
        for (task, _, on_outcome), outcome in zip(waiting, outcomes, strict=True):
            deliver(on_outcome, outcome, task.session)

    def forget(self, session: Hashable) -> None:
        """Drop a session's request."""
        self.waiting.pop(session, None)

    def _wait(self, request: Waiting) -> None:
        self.waiting[request[0].session] = request
        if len(self.waiting) >= self._batcher.max_batch:
            self.end_turn()
        elif not self._is_end_near:
            self._is_end_near = True
            self._loop.call_soon(self._end_soon)

    def _answer_one(self, policy: InlinePolicy, task: Task) -> Outcome:
        if self._observers.inline_batch_started:
            return self._answer(policy, (task,))[0]
        outcome = policy.answer_one(task)
        for tell in self._observers.inline_batch_ended:
            tell(1, outcome.ended_at - outcome.started_at if isinstance(outcome, Answered) else 0.0)
        return outcome

    def _answer(self, policy: InlinePolicy, batch: Sequence[Task]) -> Sequence[Outcome]:
        started_at = time.monotonic()
        for tell in self._observers.inline_batch_started:
            tell([task.session for task in batch], started_at)
        outcomes = policy.answer(batch)
        for tell in self._observers.inline_batch_ended:
            tell(len(batch), time.monotonic() - started_at)
        return outcomes

    def _end_soon(self) -> None:
        self._is_end_near = False
        self.end_turn()


class Turns:
    """Expects, from the turns before, whether a request will share its call with others.

    A request that waits for the turn's end alone has waited for nothing. So waiting begins when a second session asks,
    and goes on while turns bring more than one request; a session that asks alone never waits.
    """

    def __init__(self) -> None:
        self._credit = -1  # above 0: wait. Below: so many switches of session until waiting is tried
        self._last: Hashable = None

    def waits(self, session: Hashable) -> bool:
        """Whether this session's request should wait for the turn's end."""
        if self._credit > 0:
            return True
        if session != self._last:
            self._last = session
            self._credit += 1
        return self._credit > 0

    def on_end(self, count: int) -> None:
        """Note that a turn that was waited for brought `count` requests."""
        if count > 1:
            self._credit = _TRUST
            return
        self._credit -= 1
        if self._credit == 0:
            self._credit = -_PAUSE
