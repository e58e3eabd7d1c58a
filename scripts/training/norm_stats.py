"""The spread of what a policy sees, by which its observations are scaled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_CONSTANT = 1e-6  # a spread below this share of the values is rounding


class NormStats(NamedTuple):
    """The spread of each number, (D,) float32 each."""

    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q99: np.ndarray

    def normalize(self, values: Any) -> Any:
        """Scale observations as the server does before it calls the policy."""
        return (values - self.mean) / np.maximum(self.std, np.float32(1e-8))


def measured(rows: np.ndarray) -> NormStats:
    """The spread of rows, (n, D) float32.

    What never varied gets a deviation of 1: a trained policy may get to where it does, and a tiny one would blow it up.
    """
    q01, q99 = np.percentile(rows, [1, 99], axis=0).astype(np.float32)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    return NormStats(mean, np.where(std <= _CONSTANT * np.maximum(1, abs(mean)), np.float32(1), std), q01, q99)
