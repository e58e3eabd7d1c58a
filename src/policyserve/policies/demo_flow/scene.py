"""The scene of demo_flow: a point follows a slow curve on a stage that drifts, and passes an obstacle every 3 s.

It may pass left or right, so that there are two ways that are right, and none between them. The stage drifts at random:
an action that was planned long ago is a wrong one. Lengths are metres, times seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array

CONTROL_HZ = 50
HORIZON = 50  # actions of a chunk
_STEP_S = 1 / CONTROL_HZ
_SIDES = np.array([1.0, -1.0])  # left and right of the obstacle
_DRIFT = 0.35  # of the stage, metres by the root of a second
_SMOOTHED = 25  # steps over which the drift is smoothed
_FOLLOWS = 0.6  # of the way to an action that the point has made when the next one comes
_BESIDE = 0.7  # metres between the two ways where the obstacle is
_TOUCHES = 0.2  # metres around the obstacle's middle


def ways(times_s: Array) -> Array:
    """Both right ways at these times (…,), without the drift: (…, 2 ways, 2) with x and y."""
    base = np.stack([np.sin(0.6 * times_s), 0.5 * np.cos(0.45 * times_s)], -1)
    bump = np.exp(-0.5 * ((times_s % 3.0 - 1.5) / 0.28) ** 2)
    aside = _SIDES * bump[..., None] * 0.6
    return base[..., None, :] + np.stack([np.zeros_like(aside), aside], -1)


class Scene:
    """One episode of `steps` steps at CONTROL_HZ: what a robot in it sees, and how well it does."""

    def __init__(self, steps: int, seed: int = 0) -> None:
        kicks = np.random.default_rng((seed, 1)).standard_normal((steps, 2)) * _DRIFT * math.sqrt(_STEP_S)
        drift = np.zeros((steps, 2))
        for step in range(1, steps):
            drift[step] = drift[step - 1] * (1 - _STEP_S / 2) + kicks[step]
        self._drift = np.stack([_smooth(drift[:, axis]) for axis in (0, 1)], -1)
        self.start: Array = np.array([0.0, 0.5]) + self._drift[0]

    def observation(self, step: int, position: Array) -> Mapping[str, Any]:
        """What demo_flow takes, for a robot that is at a position (2,)."""
        return {
            "position": np.asarray(position, np.float32),
            "stage": self._drift[step].astype(np.float32),
            "time_s": np.array(step * _STEP_S),
        }

    def moved(self, position: Array, action: Array) -> Array:
        """Where the point is one step later: most of the way to the action."""
        return position + _FOLLOWS * (action - position)

    def error(self, step: int, position: Array) -> float:
        """How far a position is from the nearer of both right ones."""
        return float(np.linalg.norm(self._right(step) - position, axis=-1).min())

    def is_hit(self, step: int, position: Array) -> bool:
        """Whether the point is in the obstacle."""
        left, right = self._right(step)[:, 1]
        return bool(left - right > _BESIDE and abs(position[1] - (left + right) / 2) < _TOUCHES)

    def _right(self, step: int) -> Array:
        """Both right positions, (2, 2)."""
        return ways(np.array(step * _STEP_S)) + self._drift[step]


def _smooth(values: Array) -> Array:
    """The mean of each value and those around it."""
    around = np.pad(values, (_SMOOTHED // 2, _SMOOTHED // 2), "edge")
    return np.convolve(around, np.ones(_SMOOTHED) / _SMOOTHED, "valid")
