"""A policy that says whom it answers, counts each session's requests in its state, and tells its version."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec

DEADLY = -1.0  # the number of a request that kills the process


class Counting:
    """Answers (who, number, count, version). takes_s: of a batch. pids: where it leaves its process's number.

    It is not loaded while there is a file held(pids).
    """

    def __init__(
        self, version: int = 1, takes_s: float = 0.02, pids: Path | None = None, name: str = "counting"
    ) -> None:
        self.spec = PolicySpec(
            name, {"obs": ArraySpec((2,), "float64", "who, number")}, ArraySpec((4,), "float64"), max_batch=8
        )
        self._version = version
        self._takes_s = takes_s
        if pids is not None:
            while held(pids).exists():
                time.sleep(0.05)
            (pids / f"{os.getpid()}.{version}").touch()

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        if any(one.observation["obs"][1] == DEADLY for one in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._takes_s)
        return [self._answer(one) for one in batch]

    def close(self) -> None:
        """Nothing to release."""

    def _answer(self, one: PolicyInput) -> ActionChunk:
        count = (one.state or 0) + 1
        return ActionChunk(np.array([*one.observation["obs"], count, self._version]), count)


def held(pids: Path) -> Path:
    """The file that keeps policies from being loaded."""
    return pids.with_name(f"{pids.name}.held")


def policy() -> Counting:
    """For edges' command lines, whose policy is on the cluster."""
    return Counting()
