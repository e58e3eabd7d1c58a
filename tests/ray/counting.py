"""A policy that says whom it answers, counts each session's requests in its state, and tells its version."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec


class Counting:
    """Answers (who, number, count, version). takes_s: of a batch. pids: where it leaves its process's number."""

    def __init__(
        self, version: int = 1, takes_s: float = 0.02, pids: Path | None = None, name: str = "counting"
    ) -> None:
        self.spec = PolicySpec(
            name, {"obs": ArraySpec((2,), "float64", "who, number")}, ArraySpec((4,), "float64"), max_batch=8
        )
        self._version = version
        self._takes_s = takes_s
        if pids is not None:
            (pids / f"{os.getpid()}.{version}").touch()

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        time.sleep(self._takes_s)
        return [self._answer(one) for one in batch]

    def close(self) -> None:
        """Nothing to release."""

    def _answer(self, one: PolicyInput) -> ActionChunk:
        count = (one.state or 0) + 1
        return ActionChunk(np.array([*one.observation["obs"], count, self._version]), count)


def policy() -> Counting:
    """For edges' command lines, whose policy is on the cluster."""
    return Counting()
