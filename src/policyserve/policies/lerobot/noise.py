"""The noise that a Diffusion policy begins with: each session has its own, so that a batch answers as singles do."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from policyserve.core.arrays import Array

# A session's number and how many chunks it has had -> (draws, horizon, action) float32.
Noise: TypeAlias = Callable[[int, int], Array]


def noise_of(seed: int | None, shape: tuple[int, int, int]) -> Noise:
    """Noise that depends on the seed, the session and its chunk alone, on every device. seed: None: any."""
    start = secrets.randbits(64) if seed is None else seed

    def draw(session: int, chunk: int) -> Array:
        return np.random.default_rng([start, session, chunk]).standard_normal(shape, np.float32)

    return draw
