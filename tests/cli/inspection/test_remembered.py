"""What is told of a policy's memory: by its state, by what it is, and where nobody can know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from policyserve.cli.inspection.remembered import remembered_by
from policyserve.core.errors import BadObservation, PolicyserveError
from policyserve.core.policy import ActionChunk, PolicyInput, as_policy, policy_from
from policyserve.core.spec import ArraySpec, PolicySpec

SPEC = PolicySpec("arm", {"obs": ArraySpec((3,))}, ArraySpec((2,)))


class Frames(NamedTuple):
    requests: int
    frames: tuple[Any, ...] = ()
    queue: Any = None


class Arm:
    def __init__(self, answer: object) -> None:
        self.spec = SPEC
        self._answer = answer

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        if isinstance(self._answer, BaseException) and not isinstance(self._answer, PolicyserveError):
            raise self._answer
        answer = self._answer if isinstance(self._answer, PolicyserveError) else None
        return [answer or ActionChunk(np.zeros(2, np.float32), self._answer)]

    def close(self) -> None:
        pass


class Memory:
    def __init__(self) -> None:
        self.steps = 0

    def infer(self, observation: Any) -> Any:
        return np.zeros(2)

    def reset(self) -> None:
        self.steps = 0


FRAME = {"camera": np.zeros((4, 4, 3), np.uint8), "state": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("state", "size", "told"),
    [
        (Frames(1), 0, "requests"),
        (Frames(1, (FRAME, FRAME)), 120, "frames 2 x uint8 (4, 4, 3) and 2 x float32 (3,)"),
        (Frames(1, (), np.zeros((5, 2))), 80, "queue float64 (5, 2)"),
        ((np.zeros(4, np.float32), np.zeros(4, np.float32)), 32, "arrays 2 x float32 (4,)"),
        ({"hidden": np.zeros((1, 8), np.float32)}, 32, "hidden float32 (1, 8)"),
        (tuple(np.zeros(size, np.int8) for size in range(1, 6)), 15, "arrays 15 bytes"),
    ],
)
def test_a_state_is_told_by_its_parts(state: object, size: int, told: str) -> None:
    found = remembered_by(Arm(state))
    assert (found.kept, found.size_bytes, found.told) == (True, size, told)
    assert sum(found.parts.values()) == size


def test_a_policy_without_a_state_keeps_nothing() -> None:
    assert (remembered_by(Arm(None)).kept, remembered_by(Arm(None)).size_bytes) == (False, 0)


@pytest.mark.parametrize("answer", [ValueError("no\nzeros"), BadObservation("obs", "a one", "zeros")])
def test_a_policy_that_does_not_answer_zeros_is_unknown(answer: BaseException) -> None:
    found = remembered_by(Arm(answer))
    assert found.kept is None
    assert "zeros" in found.told.removeprefix("unknown: of zeros")
    assert "\n" not in found.told


def test_objects_with_a_memory_are_told_by_what_they_are() -> None:
    assert "an object of its own" in remembered_by(policy_from(Memory)).told
    assert "one memory for all sessions" in remembered_by(as_policy(Memory())).told


def test_what_takes_anything_is_not_asked() -> None:
    assert remembered_by(as_policy(lambda obs: 1 / 0)).kept is None
