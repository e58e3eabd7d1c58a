"""Policies whose own cost is nothing, or known: what is left is the server's.

    cd benchmarks && policyserve serve measuring.policies:libero_inline

Each function makes one; `policyserve serve` calls it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policyserve import ActionChunk, ArraySpec, ImageSpec, PolicyInput, PolicySpec, TextSpec
from policyserve.policies.stacked import StackedPolicy

_ACTION, _HORIZON = ArraySpec((7,), "float32", "zeros"), 32
_LIBERO_IMAGE, _ALOHA_IMAGE = ImageSpec(224, 224), ImageSpec(480, 640, layouts=("CHW",))
_STATES = {"cartpole": {"obs": ArraySpec((4,))}, "libero": {"observation/state": ArraySpec((8,))}}
_IMAGES = {"observation/image": _LIBERO_IMAGE, "observation/wrist_image": _LIBERO_IMAGE}
OBSERVATIONS: Mapping[str, Mapping[str, Any]] = {
    "cartpole": _STATES["cartpole"],
    "libero": {**_IMAGES, **_STATES["libero"], "prompt": TextSpec()},
    "aloha": {
        "images": {camera: _ALOHA_IMAGE for camera in ("cam_high", "cam_left_wrist", "cam_right_wrist")},
        "state": ArraySpec((14,)),
    },
}


class Free:
    """Answers zeros (32, 7) at once, or after `seconds` of sleep."""

    buckets: Sequence[int] = ()

    def __init__(self, payload: str, *, inline: bool = False, seconds: float = 0.0) -> None:
        self.spec = PolicySpec(payload, OBSERVATIONS[payload], _ACTION, _HORIZON, inline=inline)
        self._seconds = seconds
        self._actions = np.zeros((_HORIZON, 7), np.float32)

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        if self._seconds:
            time.sleep(self._seconds)
        return [ActionChunk(self._actions) for _ in batch]

    def close(self) -> None:
        """Nothing to release."""


def cartpole_inline() -> Free:
    return Free("cartpole", inline=True)


def libero_inline() -> Free:
    return Free("libero", inline=True)


def aloha_inline() -> Free:
    return Free("aloha", inline=True)


def cartpole_thread() -> Free:
    return Free("cartpole")


def libero_thread() -> Free:
    return Free("libero")


def aloha_thread() -> Free:
    return Free("aloha")


def aloha_10ms() -> Free:
    """10 ms, as on a GPU: the processor is free meanwhile."""
    return Free("aloha", seconds=0.01)


def one_5ms() -> Free:
    """5 ms, one observation at a time."""
    return Free("cartpole", seconds=0.005)


def cartpole_5ms() -> StackedPolicy:
    return _batchable(_STATES["cartpole"], 0.005, 32)


def libero_5ms() -> StackedPolicy:
    """Its images are stacked; the prompt is dropped."""
    return _batchable({**_IMAGES, **_STATES["libero"]}, 0.005, 32)


def cartpole_5ms_unbatched() -> StackedPolicy:
    return _batchable(_STATES["cartpole"], 0.005, 1)


def cartpole_20ms() -> StackedPolicy:
    return _batchable(_STATES["cartpole"], 0.020, 32)


def _batchable(observation: Mapping[str, Any], seconds: float, max_batch: int) -> StackedPolicy:
    """A policy that takes `seconds` for any batch, as an accelerator does: without the interpreter's lock."""
    actions = np.zeros((max_batch, _HORIZON, 7), np.float32)

    def forward(rows: Mapping[str, Any]) -> Any:
        time.sleep(seconds)
        return actions[: len(next(iter(rows.values())))]

    return StackedPolicy(forward, PolicySpec("batchable", observation, _ACTION, _HORIZON, max_batch=max_batch))


class Anything(Free):
    """Takes observations of any kind."""

    def __init__(self, *, inline: bool = False) -> None:
        super().__init__("cartpole")
        self.spec = PolicySpec("anything", None, _ACTION, _HORIZON, inline=inline)


class Camera(Free):
    """Takes 1.8 MB of images."""

    def __init__(self) -> None:
        super().__init__("cartpole")
        self.spec = PolicySpec("camera", {"images": ArraySpec((3, 448, 448, 3), "uint8")}, _ACTION, _HORIZON)


class Long:
    """Its call takes as many seconds as the observation's first number says; holds_lock: in Python code."""

    buckets: Sequence[int] = ()

    def __init__(self, *, holds_lock: bool) -> None:
        self.spec = PolicySpec("long", OBSERVATIONS["cartpole"], _ACTION, _HORIZON)
        self._holds_lock = holds_lock

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        seconds = float(batch[0].observation["obs"][0])
        end = time.monotonic() + seconds
        if not self._holds_lock:
            time.sleep(seconds)
        while time.monotonic() < end:
            sum(range(1000))
        return [ActionChunk(np.zeros((_HORIZON, 7), np.float32)) for _ in batch]

    def close(self) -> None:
        """Nothing to release."""


def long_call() -> Long:
    return Long(holds_lock=False)


def long_call_in_python() -> Long:
    return Long(holds_lock=True)


def anything_inline() -> Free:
    return Anything(inline=True)


def anything_thread() -> Free:
    return Anything()
