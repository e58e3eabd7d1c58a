"""How smoothly a robot was moved: steps without a row, how old actions were, and how they jumped at seams. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policyserve.core.arrays import Array
from policyserve.realtime.values import Source

_ROWS: tuple[Source, ...] = ("chunk", "blend")
_PACE = 0.99  # the quantile of the policy's own steps that seams are compared with


@dataclass(frozen=True)
class SmoothnessFigures:
    """Figures of at least one action.

    starved_steps: of `steps`, those for which no row was there; longest_pause_steps: how many of them in a row.
    age_…_s: from an observation to an action that rests on it. seam_…: the jump between two actions where a chunk had
    joined meanwhile, the largest of an action's numbers, in units of the policy's own step: what 99 of 100 steps within
    its chunks stay below. None where there was no seam, or the policy's chunks do not move.
    """

    steps: int
    starved_steps: int
    longest_pause_steps: int
    chunks: int
    age_mean_s: float
    age_p99_s: float
    seam_p50: float | None
    seam_p95: float | None
    seam_max: float | None


class Smoothness:
    """Takes note of each action that a robot is sent in an episode, and of the policy's chunks."""

    def __init__(self) -> None:
        self.steps = self.starved_steps = self.longest_pause_steps = self.chunks = 0
        self._ages: list[float] = []
        self._seams: list[float] = []
        self._own_steps: list[float] = []
        self._last: Array | None = None
        self._pause = 0

    def chunk(self, rows: Array) -> None:
        """A chunk came, (H, D)."""
        self.chunks += 1
        self._own_steps += np.abs(np.diff(rows.astype(np.float64), axis=0)).max(-1).tolist()

    def sent(self, values: Array | None, source: Source, age_s: float, has_joined: bool) -> None:
        """An action was sent, (D,); None: the robot got none. has_joined: a chunk had come since the one before."""
        self.steps += 1
        if source in _ROWS:
            self._pause = 0
            self._ages.append(age_s)
        else:
            self._pause += 1
            self.starved_steps += 1
            self.longest_pause_steps = max(self.longest_pause_steps, self._pause)
        if values is None:
            return
        if has_joined and self._last is not None:
            self._seams.append(float(np.abs(values - self._last).max()))
        self._last = values.astype(np.float64)

    def join(self, other: Smoothness) -> None:
        """Count another episode in."""
        self.steps += other.steps
        self.starved_steps += other.starved_steps
        self.longest_pause_steps = max(self.longest_pause_steps, other.longest_pause_steps)
        self.chunks += other.chunks
        self._ages += other._ages
        self._seams += other._seams
        self._own_steps += other._own_steps

    def figures(self) -> SmoothnessFigures:
        """What there is so far."""
        pace = float(np.quantile(self._own_steps, _PACE)) if self._own_steps else 0.0
        seams = [_quantile(self._seams, share) for share in (0.5, 0.95, 1.0)]
        return SmoothnessFigures(
            self.steps,
            self.starved_steps,
            self.longest_pause_steps,
            self.chunks,
            float(np.mean(self._ages)) if self._ages else 0.0,
            _quantile(self._ages, 0.99),
            *((seam / pace if self._seams and pace > 0 else None) for seam in seams),
        )


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0
