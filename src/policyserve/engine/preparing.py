"""Prepares a batch in a second thread while the policy works on the batch before it.

What must stay true: a policy prepares one batch at a time, whichever thread asks; what it prepared is let go of as it
is handed over, so that its memory serves the batch after the next; and what it raises is raised where it would infer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from policyserve.core.errors import PolicyserveError
from policyserve.core.policy import ActionChunk, PolicyInput, PreparingPolicy


class Prepared:
    """What a policy made of a batch, or raised at it. Good for one call."""

    __slots__ = ("_has_failed", "_made", "_policy")

    def __init__(self, policy: PreparingPolicy, batch: Sequence[PolicyInput]) -> None:
        self._policy = policy
        self._has_failed = False
        try:
            self._made: Any = policy.prepare(batch)
        except BaseException as error:  # a stranger's: it is told when the batch's turn comes
            self._has_failed, self._made = True, error

    def infer(self, batch: Sequence[PolicyInput]) -> Sequence[ActionChunk | PolicyserveError]:
        """Have the policy answer the same batch, with states; raises what preparing raised."""
        if self._has_failed:
            raise self._take()
        return self._policy.infer_prepared(batch, self._take())

    def _take(self) -> Any:
        made, self._made = self._made, None
        return made


class PreparingInTurn:
    """A preparing policy that prepares for one caller at a time; infer() prepares too."""

    def __init__(self, policy: PreparingPolicy) -> None:
        self.spec = policy.spec
        self._policy = policy
        self._lock = threading.Lock()

    def prepare(self, batch: Sequence[PolicyInput]) -> Any:
        with self._lock:
            return self._policy.prepare(batch)

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: Any) -> Sequence[ActionChunk | PolicyserveError]:
        return self._policy.infer_prepared(batch, prepared)

    def infer(self, batch: Sequence[PolicyInput]) -> Sequence[ActionChunk | PolicyserveError]:
        # prepare() sees no state here either, since none is known when it runs ahead.
        stateless = tuple(PolicyInput(one.observation, one.batch_size) for one in batch)
        return self._policy.infer_prepared(batch, self.prepare(stateless))

    def close(self) -> None:
        self._policy.close()


class Progress:
    """The number of the batch that the policy is working on, counted from 1.

    The second thread prepares batch n only once n - 1 has been taken up. Otherwise it could take the lock that the
    policy's own thread needs to prepare n - 1.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken_up = 0
        self._is_over = False

    def take_up(self, number: int) -> None:
        """The policy's thread begins with this batch, which is prepared."""
        with self._condition:
            self._taken_up = number
            self._condition.notify_all()

    def wait_for(self, number: int) -> bool:
        """Wait until this batch is the next one; False if it never will be."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_over or self._taken_up >= number - 1)
            return not self._is_over

    def end(self) -> None:
        """Nothing more is taken."""
        with self._condition:
            self._is_over = True
            self._condition.notify_all()


class PreparingThread:
    """A thread that prepares one batch while the policy's own works on the one before. `prepare` never raises."""

    def __init__(self, prepare: Callable[[Sequence[Any]], Prepared]) -> None:
        self._prepare = prepare
        self._batches: SimpleQueue[tuple[int, Sequence[Any], Future[Prepared]] | None] = SimpleQueue()
        self._progress = Progress()
        # A daemon: a policy that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="policy, preparing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, number: int, batch: Sequence[Any]) -> Future[Prepared]:
        """Prepare a batch when its turn comes; for take()."""
        future: Future[Prepared] = Future()
        self._batches.put((number, batch, future))
        return future

    def take(self, number: int, batch: Sequence[Any], ahead: Future[Prepared] | None) -> Prepared:
        """In the policy's thread: what submit() promised, or, if that was not begun or asked, the same made here."""
        prepared = self._prepare(batch) if ahead is None or ahead.cancel() else ahead.result()
        self._progress.take_up(number)
        return prepared

    def close(self) -> None:
        """Begin nothing more, and wait until the thread has ended."""
        self._progress.end()
        self._batches.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._batches.get()) is not None:
            number, batch, future = item
            if self._progress.wait_for(number) and future.set_running_or_notify_cancel():
                future.set_result(self._prepare(batch))
            del item, batch, future  # their memory would stay taken until the next batch comes
