"""Policies that need no model: one to try a client with, and small ones for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.policies.stacked import StackedPolicy

_DEMO_ACTIONS = 14


def demo_image(*, max_batch: int = 16, max_client_batch: int = 1024) -> StackedPolicy:
    """A demo that controls nothing: an image and a state give numbers in -1 … 1 that depend on both, always the same.

    Takes {"image": (64, 64, 3) uint8, "state": (any,) float32}, answers (14,) float32.
    """
    spec = PolicySpec(
        "demo_image",
        observation={
            "image": ImageSpec(64, 64, doc="any picture"),
            "state": ArraySpec((None,), "float32", "any numbers"),
        },
        action=ArraySpec((_DEMO_ACTIONS,), "float32", "numbers without a meaning, -1 … 1"),
        max_batch=max_batch,
        max_client_batch=max_client_batch,
        metadata={"demo": "answers numbers without a meaning: it controls nothing"},
    )
    return StackedPolicy(_demo_actions, spec)


def _demo_actions(rows: Mapping[str, Any]) -> Array:
    image, state = rows["image"], np.nan_to_num(rows["state"])
    tiles = image.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4), dtype=np.float32).reshape(len(image), -1) / 255
    with np.errstate(over="ignore"):
        return np.tanh(_each(tiles, _waves(tiles.shape[1])) / 8 + _each(np.tanh(state), _waves(state.shape[1])))


def _each(rows: Array, weights: Array) -> Array:
    """The rows times the weights, one by one: a row's last bits then do not depend on who else is in its batch."""
    return (rows[:, None] @ weights)[:, 0]


def _waves(inputs: int) -> Array:
    """Fixed weights, (inputs, 14) float32: no random generator whose stream may change."""
    return np.sin(np.outer(np.arange(1, inputs + 1), np.arange(1, _DEMO_ACTIONS + 1))).astype(np.float32)


class EchoPolicy:
    """Answers each observation's `obs` as its action."""

    # No warm-up: what a test sees are its own requests, and a policy that fails or waits can be served.
    buckets: Sequence[int] = ()

    def __init__(self, size: int = 4, *, max_batch: int = 8, max_client_batch: int = 64) -> None:
        self.closed = False
        self.spec = PolicySpec(
            type(self).__name__,
            observation={"obs": ArraySpec((size,), "float32", "numbers")},
            action=ArraySpec((size,), "float32", "the same numbers"),
            max_batch=max_batch,
            max_client_batch=max_client_batch,
        )

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [ActionChunk(one.observation["obs"]) for one in batch]

    def close(self) -> None:
        self.closed = True


class CountingPolicy(EchoPolicy):
    """Echoes, and keeps the size of every batch that it was given in `sizes`."""

    def __init__(self, size: int = 4, *, max_batch: int = 8, max_client_batch: int = 64) -> None:
        super().__init__(size, max_batch=max_batch, max_client_batch=max_client_batch)
        self.sizes: list[int] = []

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        self.sizes.append(len(batch))
        return super().infer(batch)


class SlowPolicy(CountingPolicy):
    """Echoes once a test has set `release`; `entered` is set while it waits for that."""

    def __init__(self, size: int = 4, *, max_batch: int = 8, max_client_batch: int = 64) -> None:
        super().__init__(size, max_batch=max_batch, max_client_batch=max_client_batch)
        self.entered = threading.Event()
        self.release = threading.Event()

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        self.entered.set()
        self.release.wait()
        self.entered.clear()
        return super().infer(batch)


class FailingPolicy(EchoPolicy):
    """Raises RuntimeError if one of its observations is `poisoned`, which all are unless a test says otherwise."""

    def __init__(self, poisoned: Callable[[Array], bool] = lambda _obs: True, *, max_batch: int = 8) -> None:
        super().__init__(max_batch=max_batch)
        self._poisoned = poisoned

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        if any(self._poisoned(one.observation["obs"]) for one in batch):
            raise RuntimeError("this policy fails")
        return super().infer(batch)


class NanPolicy(EchoPolicy):
    """Answers NaN."""

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [ActionChunk(np.full_like(chunk.actions, np.nan)) for chunk in super().infer(batch)]
