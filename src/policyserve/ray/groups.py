"""Groups: what one lane asks a replica at a time, and what it is answered, as MessagePack and one flat array. Pure.

One array, since each costs on its way, and MessagePack, since what a client sent must not be unpickled anywhere.
Clocks of two machines differ, so that a replica tells how long ago something was and not when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import PolicyFailed, PolicyserveError, failed
from policyserve.core.policy import ActionChunk
from policyserve.core.printable import text_of
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import Task
from policyserve.engine.isolated.codec import Packed, pack, unpack
from policyserve.engine.isolated.faults import read_error, write_error
from policyserve.ray.carrying import DEFAULT_MAX_STATE_KIB, read_state, write_state

# A group or its answers: MessagePack, and the large arrays, one behind the other, as uint8.
Parts: TypeAlias = tuple[bytes, Array]
OnAnswer: TypeAlias = Callable[[Parts | Exception], None]


@dataclass(frozen=True)
class Described:
    """What a replica serves. version: of the policy, as its deployment calls it.

    stays: whether what the policy remembers of a session stays with one replica, whose token is the session's state.
    """

    spec: PolicySpec
    version: str
    stays: bool = False

    @property
    def digest(self) -> str:
        """The same for two that sessions cannot tell apart: all but max_batch, which memory may change."""
        told = pack(replace(self.spec, max_batch=1)) + (b"stays" if self.stays else b"")
        return hashlib.sha256(told).hexdigest()[:16]


@dataclass(frozen=True)
class Group:
    """Requests of several sessions. digest: of the spec that their sessions were told.

    forgotten: sessions that have ended, with their states, where these stay with replicas.
    """

    tasks: Sequence[Task]
    digest: str
    forgotten: Sequence[tuple[Hashable, Any]] = ()


@dataclass(frozen=True)
class Answers:
    """The outcomes of a group, one for each task; a chunk's state are bytes.

    digest: of the replica's spec; if it is another one than the group's, nothing was answered and there are none.
    broken: why the replica's policy is being replaced, if it is.
    """

    outcomes: Sequence[Outcome]
    digest: str
    version: str
    broken: str = ""


def write_described(described: Described) -> bytes:
    """What a replica serves, as bytes; raises PolicyFailed if its spec cannot leave its process."""
    try:
        return pack([described.version, described.spec, described.stays])
    except BaseException as error:  # a stranger's metadata
        raise PolicyFailed(f"the policy's spec cannot leave its process: {text_of(error)}") from error


def read_described(data: bytes) -> Described:
    """What write_described() wrote."""
    version, spec, stays = unpack(data)
    return Described(spec, version, stays)


def write_group(group: Group, edge: str = "") -> Packed:
    """A group as bytes; its arrays are still where they were, and a task's state are bytes.

    edge: makes its sessions' names differ from those of other edges. Raises TypeError for an observation that no
    dialect makes.
    """
    tasks = [[f"{edge}{one.session}", one.batch_size, one.observation, one.state] for one in group.tasks]
    forgotten = [[f"{edge}{session}", state] for session, state in group.forgotten]
    return Packed([group.digest, tasks, forgotten])


def read_group(message: bytes, arrays: Array) -> Group:
    """The group that write_group() wrote, with states that a policy takes.

    arrays: writable, and for this group alone: observations are views of it, and the policy's.
    """
    digest, told, ended = unpack(message, arrays)
    tasks = [Task(session, seen, size, read_state(state)) for session, size, seen, state in told]
    return Group(tasks, digest, [(session, read_state(state)) for session, state in ended])


def write_answers(answers: Answers, now: float, max_state_kib: float = DEFAULT_MAX_STATE_KIB) -> Parts:
    """Answers as bytes, at `now` on the clock of their times. What cannot be written fails that outcome alone."""
    head = [answers.digest, answers.version, answers.broken]
    told = [_written(one, now, max_state_kib) for one in answers.outcomes]
    try:
        return joined(Packed([*head, told]))
    except BaseException:  # extras are a stranger's: find out whose
        return joined(Packed([*head, [_writable(one) for one in told]]))


def read_answers(message: bytes, arrays: Array, now: float) -> Answers:
    """The answers that write_answers() wrote; their times are before `now`, on its clock."""
    digest, version, broken, told = unpack(message, arrays)
    return Answers([_read(one, now) for one in told], digest, version, broken)


def joined(packed: Packed) -> Parts:
    """With its arrays in one."""
    memory = np.empty(packed.size, np.uint8)
    packed.write_arrays(memory)
    return packed.data, memory


def writable(arrays: Array) -> Array:
    """Arrays that whoever has them may keep and write into: a copy where they came through Ray, which forbids it."""
    return arrays if arrays.flags.writeable else arrays.copy()


def _written(outcome: Outcome, now: float, max_state_kib: float) -> list[Any]:
    if isinstance(outcome, PolicyserveError):
        return ["error", write_error(outcome)]
    chunk = outcome.chunk
    try:
        state = write_state(chunk.state, max_state_kib)
    except PolicyFailed as error:
        return ["error", write_error(error)]
    ago = [max(now - outcome.started_at, 0.0), max(now - outcome.ended_at, 0.0)]
    return ["answer", *ago, chunk.actions, dict(chunk.extras), state]


def _writable(told: list[Any]) -> list[Any]:
    try:
        Packed(told)
    except BaseException as error:  # a stranger's extras
        return ["error", write_error(failed("the answer cannot be written:", error))]
    return told


def _read(told: list[Any], now: float) -> Outcome:
    kind, *content = told
    if kind == "error":
        error = read_error(content[0])
        return error if isinstance(error, PolicyserveError) else PolicyFailed(text_of(error))
    started_ago_s, ended_ago_s, actions, extras, state = content
    return Answered(ActionChunk(actions, state, extras), now - started_ago_s, now - ended_ago_s)
