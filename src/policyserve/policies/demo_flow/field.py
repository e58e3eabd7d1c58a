"""The velocity of demo_flow, in closed form: a mixture of two Gaussians over smooth chunks, a way each.

For a chunk x at time t, 0 noise and 1 data, what the data is expected to be, D(x), and the product of its derivative
with a vector follow from both Gaussians' means and their common covariance. All is float64, and each row of a batch is
computed by itself: its bits do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from policyserve.core.arrays import Array
from policyserve.policies.demo_flow.scene import CONTROL_HZ, HORIZON, ways
from policyserve.policies.rtc import Field

_SPREAD = 0.05  # metres, of a chunk around its way
_SMOOTH = 12  # steps over which it changes
_BEGINS = 6  # steps over which it spreads from where the robot is
_RETURNS = 8  # steps in which it comes back to its way
_NEAR = 0.15  # metres: how far a way may be and still be the robot's own


class Mixture:
    """What chunks are likely for B observations. positions, stages: (B, 2) metres. times_s: (B,)."""

    def __init__(self, positions: Array, stages: Array, times_s: Array) -> None:
        rows = np.arange(HORIZON)
        right = np.moveaxis(ways(times_s[:, None] + rows / CONTROL_HZ), 2, 1) + stages[:, None, None]  # (B, 2, H, 2)
        off = positions[:, None, None] - right[:, :, :1]
        self.means: Array = right + off * np.exp(-rows / _RETURNS)[:, None]
        near = -0.5 * (off[:, :, 0] ** 2).sum(-1) / _NEAR**2
        self.log_prior: Array = near - np.logaddexp.reduce(near, axis=1, keepdims=True)  # (B, 2)

    @cached_property
    def field(self) -> Field:
        """The velocity of chunks (B, H, 2), for rtc.sample()."""

        def velocity(x: Array, t: float) -> tuple[Array, Callable[[Array], Array]]:
            data, pull = self.denoised(x, t)
            return (data - x) / (1 - t), lambda error: (pull(error) - error) / (1 - t)

        return velocity

    def denoised(self, x: Array, t: float) -> tuple[Array, Callable[[Array], Array]]:
        """D(x), the data that is expected, and what multiplies a vector by the transpose of its derivative."""
        spread = t * t * _VALUES + (1 - t) ** 2
        gain = t * _VALUES / spread
        off = x[:, None] - t * self.means
        score = -_along(1 / spread, off)
        share = _share(self.log_prior + 0.5 * (off * score).sum((-2, -1)))  # (B, 2)
        best = self.means + _along(gain, off)

        def pull(error: Array) -> Array:
            lean = share * (best * error[:, None]).sum((-2, -1))
            return _along(gain, error) + _mixed(lean, score) - lean.sum(1)[:, None, None] * _mixed(share, score)

        return _mixed(share, best), pull

    def continued(self, place: int, prefix: Array, noise: Array, choice: float) -> Array:
        """A chunk (H, 2) of one row of the batch that begins with `prefix`, drawn from what is likely then.

        This is what training-time real-time chunking learns. noise: (H, 2). choice: 0 … 1, which of the ways.
        """
        known, means = len(prefix), self.means[place]
        inside, across = _KERNEL[:known, :known], _KERNEL[known:, :known]
        gain = np.linalg.solve(inside + 1e-4 * np.eye(known), across.T).T
        off = prefix - means[:, :known]
        unlikely = np.linalg.solve(inside + _SPREAD**2 * np.eye(known), off)
        share = _share(self.log_prior[place] - 0.5 * (off * unlikely).sum((-2, -1)))
        way = int(choice >= share[0])
        values, basis = np.linalg.eigh(_KERNEL[known:, known:] - gain @ _KERNEL[:known, known:])
        drawn = basis @ (np.sqrt(np.maximum(values, 0))[:, None] * noise[known:])
        return np.concatenate([prefix, means[way, known:] + gain @ off[way] + drawn])


def _covariance() -> Array:
    rows = np.arange(HORIZON)
    envelope = 1 - np.exp(-(rows + 1) / _BEGINS)
    smooth = np.exp(-0.5 * ((rows[:, None] - rows) / _SMOOTH) ** 2)
    return _SPREAD**2 * smooth * envelope[:, None] * envelope + 1e-6 * np.eye(HORIZON)


_KERNEL = _covariance()
_VALUES, _BASIS = np.linalg.eigh(_KERNEL)


def _along(diagonal: Array, chunks: Array) -> Array:
    """The chunks (…, H, 2) times the matrix that is `diagonal` in the covariance's own directions."""
    return _BASIS @ (diagonal[:, None] * (_BASIS.T @ chunks))


def _share(log_likelihood: Array) -> Array:
    """How likely each way is, of the last axis."""
    return np.exp(log_likelihood - np.logaddexp.reduce(log_likelihood, axis=-1, keepdims=True))


def _mixed(share: Array, chunks: Array) -> Array:
    """Both ways' chunks (B, 2, H, 2) in these shares (B, 2)."""
    return share[:, 0, None, None] * chunks[:, 0] + share[:, 1, None, None] * chunks[:, 1]
