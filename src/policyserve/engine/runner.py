"""Where a policy runs: one thread of its own, so that the event loop never waits for it.

The thread loads the policy, warms every batch bucket, and then answers one batch at a time. Each session's policy
state stays here: it goes into the session's next input and is dropped by forget().
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias

from policyserve.core.errors import PolicyFailed, PolicyserveError
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.session import Answered, Outcome
from policyserve.core.spec import PolicySpec

log = logging.getLogger(__name__)

_INLINE_LIMIT_MS = 1.0

# Called with the name of each stage ("loading", "warming up, batch 8"), from the thread that loads.
OnStage: TypeAlias = Callable[[str], None]
LoadPolicy: TypeAlias = Callable[[OnStage], Policy]


@dataclass(frozen=True, slots=True)
class Task:
    """One session's part of a batch."""

    session: Hashable
    observation: Any
    batch_size: int | None = None


OnDone: TypeAlias = Callable[[Sequence[Outcome]], None]


class Runner(Protocol):
    """A place where one policy runs. All methods are called in the event loop's thread."""

    async def start(self, on_stage: OnStage) -> PolicySpec: ...
    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None: ...
    def forget(self, session: Hashable) -> None: ...
    async def close(self, timeout_s: float) -> None: ...


class ThreadRunner:
    """Runs a policy in one thread. `load` is called there too; it may take minutes and call on_stage.

    A policy that declares itself inline runs in the event loop, where a hop to a thread and back would cost more than
    its call, until its calls take longer than 1 ms; a client's own batch goes to the thread in any case.
    """

    def __init__(self, load: LoadPolicy) -> None:
        self._load = load
        self._calls: SimpleQueue[Callable[[Policy], None] | None] = SimpleQueue()
        self._states: dict[Hashable, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._inline: Policy | None = None  # the policy, while it may run in the loop
        self._slowness = 0  # of its calls there: up with each slow one, down with each quick one

    async def start(self, on_stage: OnStage) -> PolicySpec:
        """Load and warm the policy; returns its spec. Raises what loading raised, PolicyFailed if warming up did."""
        loop = self._loop = asyncio.get_running_loop()
        loaded: asyncio.Future[PolicySpec] = loop.create_future()
        self._ended = loop.create_future()
        # A daemon: a policy that hangs must not keep the process from ending.
        threading.Thread(target=self._run, args=(on_stage, loaded), name="policy", daemon=True).start()
        return await loaded

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        """Answer a batch; `on_done` is called in the event loop with one outcome per task, in order, maybe at once."""
        if self._inline is not None and all(task.batch_size is None for task in batch):
            on_done(self._answer_inline(self._inline, batch))
            return

        def call(policy: Policy) -> None:
            self._in_loop(on_done, self._answer(policy, batch))

        self._calls.put(call)

    def forget(self, session: Hashable) -> None:
        """Drop a session's policy state, after the batch that may be running."""
        self._calls.put(lambda _policy: self._states.pop(session, None))

    async def close(self, timeout_s: float) -> None:
        """Close the policy after the calls before; gives up waiting (and leaves the thread) after timeout_s."""
        self._inline = None
        self._calls.put(None)
        if self._ended is not None:
            await asyncio.wait([self._ended], timeout=timeout_s)

    def _run(self, on_stage: OnStage, loaded: asyncio.Future[PolicySpec]) -> None:
        try:
            policy = self._load(on_stage)
            warm_up(policy, on_stage)
        except BaseException as error:  # a stranger's loader: whatever it raises belongs to start()'s caller
            self._in_loop(_settle, loaded, error)
            self._in_loop(_settle, self._ended, None)
            return
        if policy.spec.inline:
            self._inline = policy
        self._in_loop(_settle, loaded, policy.spec)
        while (call := self._calls.get()) is not None:
            call(policy)
        try:
            policy.close()
        except Exception:  # a stranger's close: the server ends all the same
            log.exception("policy %s failed to close", policy.spec.name)
        # Here and not in a thread that the interpreter's end overtakes: some frameworks abort when freed that late.
        del policy, call
        self._in_loop(_settle, self._ended, None)

    def _answer(self, policy: Policy, batch: Sequence[Task]) -> list[Outcome]:
        inputs = [PolicyInput(task.observation, task.batch_size, self._states.get(task.session)) for task in batch]
        started_at = time.monotonic()
        chunks = run_batch(policy, inputs)
        ended_at = time.monotonic()
        outcomes: list[Outcome] = []
        for task, chunk in zip(batch, chunks, strict=True):
            if isinstance(chunk, ActionChunk):
                self._keep_state(task.session, chunk.state)
                outcomes.append(Answered(chunk, started_at, ended_at))
            else:
                outcomes.append(chunk)
        return outcomes

    def _answer_inline(self, policy: Policy, batch: Sequence[Task]) -> list[Outcome]:
        started_at = time.monotonic()
        outcomes = self._answer(policy, batch)
        took_ms = (time.monotonic() - started_at) * 1e3
        # Three slow calls close together: a machine that takes the core away makes any one call slow.
        self._slowness = max(self._slowness - 1, 0) if took_ms <= _INLINE_LIMIT_MS else self._slowness + 10
        if self._slowness > 20:
            self._inline = None
            log.warning("%s is inline but took %.1f ms: from now on it runs in a thread", policy.spec.name, took_ms)
        return outcomes

    def _keep_state(self, session: Hashable, state: Any) -> None:
        if state is None:
            self._states.pop(session, None)
        else:
            self._states[session] = state

    def _in_loop(self, function: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop is closed: the server ended while a policy still ran, and nobody waits for this answer.
            log.debug("an answer came after the server's end")


def run_batch(policy: Policy, inputs: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
    """Call the policy and check what it answers; never raises, one outcome per input.

    Where a batch raises, its inputs are tried again one by one, so that a poisoned one fails alone.
    """
    try:
        answers = policy.infer(inputs)
        if len(answers) != len(inputs):
            raise PolicyFailed(f"{policy.spec.name} answered {len(answers)} chunks for {len(inputs)} inputs")
    except BaseException as error:  # a stranger's policy: even sys.exit() must not end the thread that others wait for
        if len(inputs) > 1:
            return [answer for one in inputs for answer in run_batch(policy, [one])]
        return [_failure(policy, error)]
    return [_checked(policy, one, answer) for one, answer in zip(inputs, answers, strict=True)]


def warm_up(policy: Policy, on_stage: OnStage) -> None:
    """Run every batch bucket once on zeros, so that nothing compiles in service. Without a spec: nothing to run.

    Raises PolicyFailed if the policy cannot answer them.
    """
    if policy.spec.observation is None:
        return
    for size in batch_buckets(policy):
        on_stage(f"warming up, batch {size}")
        for answer in run_batch(policy, [PolicyInput(policy.spec.example())] * size):
            if isinstance(answer, PolicyserveError):
                raise PolicyFailed(f"warm-up with zeros failed: {answer}") from answer


def batch_buckets(policy: Policy) -> Sequence[int]:
    """The batch sizes to warm: the policy's own `buckets`, or powers of two up to its max_batch."""
    own: Sequence[int] | None = getattr(policy, "buckets", None)
    if own is not None:
        return own
    largest = policy.spec.max_batch
    return [*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest]


def _checked(policy: Policy, one: PolicyInput, answer: Any) -> ActionChunk | PolicyserveError:
    if isinstance(answer, PolicyserveError):
        return answer
    try:
        actions = policy.spec.check_actions(answer.actions, one.batch_size)
        return ActionChunk(actions, answer.state, answer.extras)
    except Exception as error:  # a stranger's answer: it may be anything
        return _failure(policy, error)


def _failure(policy: Policy, error: BaseException) -> PolicyserveError:
    if isinstance(error, PolicyserveError):
        return error
    failed = PolicyFailed(f"{policy.spec.name} raised {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
