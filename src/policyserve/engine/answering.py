"""Has a loaded policy answer batches, and gives one checked outcome per input, whatever the policy does.

One thread at a time may call it; prepare() alone may be called by a second one. Each session's policy state stays
here, unless a task brings it: it goes into the session's next input and is dropped by forget(). The same code works in
the server's policy thread and in a policy's own process.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import PolicyFailed, PolicyLost, PolicyserveError, of_policy
from policyserve.core.log import Log
from policyserve.core.plain import plain_map
from policyserve.core.policy import (
    NO_EXTRAS,
    ActionChunk,
    Policy,
    PolicyInput,
    PreparingPolicy,
    ResettablePolicy,
    SettlingPolicy,
)
from policyserve.core.printable import error_text, text_of, type_name
from policyserve.core.recipe import OnStage
from policyserve.core.spec import PolicySpec
from policyserve.engine.keeping import Keeping
from policyserve.engine.preparing import Prepared, PreparingInTurn
from policyserve.engine.resets import Resets

log = Log(__name__)

LoadPolicy: TypeAlias = Callable[[OnStage], Policy]

# Errors after which every further call on that GPU fails, in the words of torch ("CUDA error: …", "CUBLAS_STATUS_…")
# and of XLA ("CUDA_ERROR_…"). Running out of memory is none of them: the next, smaller batch may fit.
_POISONED_GPU = re.compile(
    r"illegal memory access|illegal instruction|misaligned address|device-side assert|unspecified launch failure"
    r"|hardware stack error|invalid program counter|operation not supported on global/shared address space"
    r"|uncorrectable (ECC|NVLink) error|the launch timed out|CUDA( driver)? error: unknown error"
    # the GPU is gone, or this process's hold on it
    r"|GPU is lost|fallen off the bus|no CUDA-capable device is detected|device\(s\) is/are busy or unavailable"
    r"|invalid device context|context is destroyed|driver shutting down"
    # torch's allocator believes that a graph is being recorded, and does so for ever
    r"|captures_underway|no CUDA graph could be recorded"
    r"|CUDA_ERROR_(ILLEGAL_ADDRESS|ILLEGAL_INSTRUCTION|MISALIGNED_ADDRESS|LAUNCH_FAILED|LAUNCH_TIMEOUT|ASSERT|INVALID_PC"
    r"|INVALID_ADDRESS_SPACE|HARDWARE_STACK_ERROR|ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE|NO_DEVICE|DEVICE_UNAVAILABLE"
    r"|INVALID_CONTEXT|CONTEXT_IS_DESTROYED|DEINITIALIZED|UNKNOWN)"
    r"|CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)"
)
_GPU_ERROR = re.compile(r"CUDA( driver)? error|CUDA_ERROR_")  # any of them
_MOST_GPU_ERRORS = 3  # batches in a row: after so many the GPU is taken for lost, whatever they say
_MOST_OF_CAUSE = 20_000  # characters of an error that are looked through


# In a task, in the place of a state: the session's is kept where the policy is.
KEPT: Any = object()


class Task(NamedTuple):
    """One session's part of a batch. state: what the policy remembers of the session, where the request brings it."""

    session: Hashable
    observation: Any
    batch_size: int | None = None
    state: Any = KEPT


class Answering:
    """A policy and what it keeps for each session. broken: why it can answer nothing more, once that is known.

    spec: the policy's, read once. Raises PolicyFailed where it has none, and what reading it raises.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.spec = _spec_of(policy)
        self.broken = ""
        self._keeping = Keeping()
        self._served = _as_served(policy)
        self._resets = Resets(policy, self.spec.name) if isinstance(policy, ResettablePolicy) else None
        self._settling = policy if isinstance(policy, SettlingPolicy) else None
        self._gpu_errors = 0  # batches in a row that failed of one

    @property
    def prepares(self) -> bool:
        """Whether a batch can be prepared while the one before is answered."""
        return isinstance(self._served, PreparingInTurn)

    def prepare(self, batch: Sequence[Task]) -> Prepared:
        """Prepare a batch that answer() will be given, in any thread; only where it `prepares`. Never raises."""
        assert isinstance(self._served, PreparingInTurn)
        return Prepared(self._served, tuple(PolicyInput(task.observation, task.batch_size) for task in batch))

    def answer(
        self, batch: Sequence[Task], prepared: Prepared | None = None, started_at: float | None = None
    ) -> list[Outcome]:
        """One outcome per task, in order; never raises.

        prepared: what prepare() made of the batch, if it was asked. started_at: when the batch's turn came; None: now.
        """
        self._keeping.begin_batch()
        inputs = [PolicyInput(task.observation, task.batch_size, self._state(task)) for task in batch]
        started_at = time.monotonic() if started_at is None else started_at
        failed = [self._begin(task.session) for task in batch]
        chunks = run_batch(self._served, tuple(inputs), prepared, self.spec)
        ended_at = time.monotonic()
        chunks = [error or chunk for error, chunk in zip(failed, chunks, strict=True)]
        self._count_gpu_errors(chunks)
        return [self._note(task, chunk, started_at, ended_at) for task, chunk in zip(batch, chunks, strict=True)]

    def answer_one(self, task: Task) -> Outcome:
        """Answer one task as answer() does, more cheaply: an inline policy's own call may cost no more than this."""
        self._keeping.begin_batch()
        inputs = (PolicyInput(task.observation, task.batch_size, self._state(task)),)
        started_at = time.monotonic()
        failed = None if self._resets is None else self._resets.begin(task.session)
        (chunk,) = run_batch(self.policy, inputs, None, self.spec) if failed is None else (failed,)
        self._count_gpu_errors((chunk,))
        return self._note(task, chunk, started_at, time.monotonic())

    def settle(self) -> bool:
        """Have the policy do what can wait; to be called while no batch does. Whether it has more; never raises."""
        if self._settling is None or self.broken:
            return False
        try:
            return bool(self._settling.settle())
        except BaseException as error:  # a stranger's policy
            told = "%s: what it does between batches failed, and is not tried again: %s"
            log.warning(told, self.spec.name, error_text(error), cause=error)
            self._settling = None
            return False

    def take_back(self, session: Hashable) -> None:
        """The answer to a session's last request was not told: its policy state is as before that request."""
        self._keeping.take_back(session)

    def forget(self, session: Hashable) -> None:
        """Drop a session's policy state."""
        self._keeping.forget(session)
        if self._resets is not None:
            self._resets.forget(session)

    def _state(self, task: Task) -> Any:
        return self._keeping.begin(task.session) if task.state is KEPT else task.state

    def _begin(self, session: Hashable) -> PolicyserveError | None:
        return None if self._resets is None else self._resets.begin(session)

    def _note(
        self, task: Task, chunk: ActionChunk | PolicyserveError, started_at: float, ended_at: float
    ) -> Answered | PolicyserveError:
        if not isinstance(chunk, ActionChunk):
            return self._failed(chunk)
        if task.state is KEPT:
            self._keeping.keep(task.session, chunk.state)
        return Answered(chunk, started_at, ended_at)

    def _count_gpu_errors(self, chunks: Sequence[ActionChunk | PolicyserveError]) -> None:
        if any(isinstance(chunk, ActionChunk) for chunk in chunks):
            self._gpu_errors = 0
        elif any(isinstance(chunk, PolicyserveError) and _is_gpu_error(chunk) for chunk in chunks):
            self._gpu_errors += 1

    def _failed(self, error: PolicyserveError) -> PolicyserveError:
        is_lost = self._gpu_errors >= _MOST_GPU_ERRORS and _is_gpu_error(error)
        if not is_lost and not is_fatal(error):
            return error
        self.broken = str(error)
        lost = PolicyLost(f"{error}; the policy is loaded anew, and what it remembered of this session is gone")
        lost.__cause__ = error.__cause__
        return lost


def run_batch(
    policy: Policy,
    inputs: Sequence[PolicyInput],
    prepared: Prepared | None = None,
    spec: PolicySpec | None = None,
) -> list[ActionChunk | PolicyserveError]:
    """Call the policy and check what it answers; never raises, one outcome per input.

    Where a batch raises, its inputs are tried again one by one, so that a poisoned one fails alone. prepared: what the
    policy, a preparing one, has made of the inputs already. spec: the policy's, where it has been read.
    inputs: a tuple, since a policy could take its inputs out of a list.
    """
    spec = policy.spec if spec is None else spec
    try:
        answers = policy.infer(inputs) if prepared is None else prepared.infer(inputs)
        answers = [*answers] if type(answers) is list else _listed(answers, len(inputs), spec.name)
        if len(answers) != len(inputs):
            raise PolicyFailed(f"{spec.name} answered {len(answers)} chunks for {len(inputs)} inputs")
    except BaseException as error:  # a stranger's policy: even sys.exit() must not end the thread that others wait for
        failure = of_policy(error, f"{spec.name} raised")
        if len(inputs) > 1 and not is_fatal(failure):
            return [answer for one in inputs for answer in run_batch(policy, (one,), None, spec)]
        return [failure] * len(inputs)
    return [_checked(spec, one, answer) for one, answer in zip(inputs, answers, strict=True)]


def _listed(answers: Any, count: int, name: str) -> list[Any]:
    """Answers that are no list as one; at most one too many of them, since a generator may have no end.

    Raises PolicyFailed for what was meant for one answer.
    """
    if answers is None or isinstance(answers, (ActionChunk, Mapping, str)):
        got = type_name(answers)
        raise PolicyFailed(f"{name} answered {got}, expected a list of ActionChunks, one for each input ({count})")
    return [*answers] if type(answers) is tuple else list(islice(answers, count + 1))


def is_fatal(error: PolicyserveError) -> bool:
    """Whether it says that the policy's GPU takes no more calls from this process.

    Frameworks say so by a RuntimeError. Another error may quote what a client sent, who must not end the policy by it.
    """
    return _POISONED_GPU.search(_frameworks_text(error)) is not None


def _is_gpu_error(error: PolicyserveError) -> bool:
    text = _frameworks_text(error)
    # AcceleratorError: of torch since 2.8, for devices of every kind
    return bool(text) and (type_name(error.__cause__) == "AcceleratorError" or _GPU_ERROR.search(text) is not None)


def _frameworks_text(error: PolicyserveError) -> str:
    """What a framework said; empty where the error is none of a framework's."""
    cause = error.__cause__ if isinstance(error, PolicyFailed) else None
    is_frameworks = cause is not None and issubclass(type(cause), RuntimeError)
    return text_of(cause, _MOST_OF_CAUSE) if is_frameworks else ""


def warm_up(policy: Policy, on_stage: OnStage) -> None:
    """Run every batch bucket once on zeros, so that nothing compiles in service. Without a spec: nothing to run.

    Raises PolicyFailed if the policy cannot answer them.
    """
    if policy.spec.observation is None:
        return
    served = _as_served(policy)
    for size in batch_buckets(policy):
        on_stage(f"warming up, batch {size}")
        for answer in run_batch(served, (PolicyInput(policy.spec.example()),) * size):
            if isinstance(answer, PolicyserveError):
                raise PolicyFailed(f"warm-up with zeros failed: {answer}") from answer


def batch_buckets(policy: Policy) -> Sequence[int]:
    """The batch sizes to warm: the policy's own `buckets`, or powers of two up to its max_batch."""
    own: Sequence[int] | None = getattr(policy, "buckets", None)
    if own is not None:
        return own
    largest = policy.spec.max_batch
    return [*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest]


def _as_served(policy: Policy) -> Policy:
    """The policy; a preparing one is wrapped so that two threads may share it. An inline one has one thread only."""
    return PreparingInTurn(policy) if isinstance(policy, PreparingPolicy) and not policy.spec.inline else policy


def _spec_of(policy: Policy) -> PolicySpec:
    """The policy's spec, its name and metadata plain: other threads, every greeting and error read them."""
    spec = policy.spec
    if not isinstance(spec, PolicySpec):
        raise PolicyFailed(f"{type_name(policy)}.spec: expected a PolicySpec, got {type_name(spec)}")
    name, metadata = text_of(spec.name), plain_map(spec.metadata)
    is_plain = type(spec.name) is str and name == spec.name and metadata is spec.metadata
    return spec if is_plain else replace(spec, name=name, metadata=metadata)


def _checked(spec: PolicySpec, one: PolicyInput, answer: Any) -> ActionChunk | PolicyserveError:
    try:
        if isinstance(answer, PolicyserveError):
            return of_policy(answer, f"{spec.name} answered")
        actions = spec.check_actions(answer.actions, one.batch_size)
        extras = answer.extras
        if extras is not NO_EXTRAS:
            extras = NO_EXTRAS if extras is None else plain_map(extras)
        return ActionChunk(actions, answer.state, extras)
    except BaseException as error:  # a stranger's answer: reading it may run and raise anything
        if isinstance(error, AttributeError) and not issubclass(type(answer), ActionChunk):
            return PolicyFailed(f"{spec.name} answered {type_name(answer)} for an input, expected an ActionChunk")
        return of_policy(error, f"{spec.name} raised")
