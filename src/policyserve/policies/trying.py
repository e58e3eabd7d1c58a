"""Trying a policy out when it is loaded: with numbers that are not zeros, alone and in a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.spec import PolicySpec

_TRIES = 3


class TriedPolicy:
    """A policy that has been tried already. buckets: the batch sizes that are to be warmed up all the same."""

    def __init__(self, policy: Policy, buckets: Sequence[int]) -> None:
        self.spec = policy.spec
        self.buckets = buckets
        self.infer = policy.infer
        self.close = policy.close


def answers(policy: Policy, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
    """What it answers a batch; for a policy that raises where it cannot."""
    return [chunk for chunk in policy.infer(batch) if isinstance(chunk, ActionChunk)]


def drawn(spec: PolicySpec) -> Iterator[dict[str, Any]]:
    """Three observations that are not zeros, the same ones each time."""
    rng = np.random.default_rng(0)
    for _ in range(_TRIES):
        yield {key: _noise(rng, value) for key, value in spec.example().items()}


def is_same_in_a_batch(policy: Policy, tolerance: float) -> bool:
    """Whether rows get the answers in a batch that they get alone: a free first axis may be time, or a camera.

    tolerance: of an answer of about 1, and in proportion of larger ones.
    """
    first, *others = [PolicyInput(one) for one in drawn(policy.spec)]
    rows = [first, first, *others][: policy.spec.max_batch]
    try:
        alone = [answers(policy, [row])[0].actions for row in rows]
        together = [chunk.actions for chunk in answers(policy, rows)]
    except Exception:  # a model that takes one row only
        return False
    scale = max(1.0, *(float(np.nanmax(np.abs(one), initial=0.0)) for one in alone))
    return len(alone) == len(together) and all(
        one.shape == other.shape and np.allclose(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)
        for one, other in zip(alone, together, strict=True)
    )


def _noise(rng: np.random.Generator, zeros: Array) -> Array:
    if zeros.dtype.kind == "f":
        return rng.standard_normal(zeros.shape).astype(zeros.dtype)
    return rng.integers(0, 2, zeros.shape).astype(zeros.dtype)
