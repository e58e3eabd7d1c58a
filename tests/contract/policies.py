"""Policies that the contract is checked with, where any process can load them by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policyserve.core.policy import ActionChunk, FunctionPolicy, PolicyInput, open_spec
from policyserve.core.spec import ArraySpec, PolicySpec

SPEC = PolicySpec("double", {"x": ArraySpec((2,))}, ArraySpec((2,)), metadata={"robot": "arm"})


def double() -> FunctionPolicy:
    """Answers twice what it sees, and a note."""
    return FunctionPolicy(lambda observation: {"actions": observation["x"] * 2, "note": "hi"}, SPEC)


def picky() -> FunctionPolicy:
    """Fails for negative numbers, echoes others."""

    def act(observation: Any) -> Any:
        if observation["x"][0] < 0:
            raise RuntimeError("the arm fell off")
        return observation["x"]

    return FunctionPolicy(act, SPEC)


def patient() -> Callable[[Any], Any]:
    """Echoes bare numbers, 2 ms each."""

    def act(x: Any) -> Any:
        time.sleep(0.002)
        return x

    return act


def whereabouts() -> Callable[[Any], Any]:
    """Answers the number of the process that it runs in."""
    return lambda _: np.array([os.getpid()], np.float32)


class Counter:
    """Answers how many requests of its session it has seen."""

    spec = open_spec("counter")

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        counts = [(one.state or 0) + 1 for one in batch]
        return [ActionChunk(np.array([count], np.float32), state=count) for count in counts]

    def close(self) -> None: ...
