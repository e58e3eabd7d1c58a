"""Temporal ensembling: the action of a step is the mean of what all chunks so far have said of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from policyserve.core.arrays import Array


class Ensemble(NamedTuple):
    """What chunks so far say of the steps to come. means: (steps, action) float32. counts: (steps, 1) of chunks."""

    means: Array
    counts: Array


class Ensembling:
    """A chunk weighs exp(-coefficient · i), i being its place among the chunks that speak of a step, the oldest 0."""

    def __init__(self, coefficient: float, chunk_size: int) -> None:
        with np.errstate(all="ignore"):  # a large coefficient: the check of actions reports an overflow
            self._weights = np.exp(-coefficient * np.arange(chunk_size, dtype=np.float32)).astype(np.float32)
            self._sums = np.cumsum(self._weights)

    def add(self, earlier: Ensemble | None, chunk: Array) -> tuple[Array, Ensemble]:
        """The action of this step, and what is known of those behind it. chunk: (chunk_size, action)."""
        if earlier is None or not len(earlier.means):
            means, counts = chunk.astype(np.float32), np.ones((len(chunk), 1), np.int64)
        else:
            means, counts = self._joined(earlier, chunk)
        return means[0], Ensemble(means[1:], counts[1:])

    def _joined(self, earlier: Ensemble, chunk: Array) -> tuple[Array, Array]:
        means, counts = earlier
        with np.errstate(all="ignore"):
            means = (means * self._sums[counts - 1] + chunk[:-1] * self._weights[counts]) / self._sums[counts]
        counts = np.minimum(counts + 1, len(chunk))
        newest = np.ones((1, 1), np.int64)
        return np.concatenate([means, chunk[-1:]]).astype(np.float32), np.concatenate([counts, newest])
