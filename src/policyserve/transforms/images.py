"""Images to the size that a model was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.transforms.compose import as_float32, at_key


@dataclass(frozen=True)
class ResizeImageInput:
    """Resize (..., H, W, C) images of any dtype to (..., height, width, C) float32; their scale stays what it was.

    Bilinear with half-pixel centres, antialiased where it shrinks, as jax.image.resize. With `key`, that entry of an
    observation that is a map. On accelerators JAX multiplies in reduced precision unless told otherwise
    (jax_default_matmul_precision).
    """

    height: int
    width: int
    key: str | None = None

    def __call__(self, observation: Any) -> Any:
        return at_key(self.key, self._resize, observation)

    def _resize(self, image: Any) -> Any:
        image = as_float32(image)
        *batch, height, width, channels = image.shape
        if height != self.height:
            rows = image.reshape(*batch, height, width * channels)
            image = (_weights(height, self.height) @ rows).reshape(*batch, self.height, width, channels)
        if width != self.width:
            columns = image.swapaxes(-1, -2)  # (..., height, C, width): one big product is faster than many small
            columns = columns.reshape(-1, width) @ _weights(width, self.width).T
            image = columns.reshape(*batch, self.height, channels, self.width).swapaxes(-1, -2)
        return image


@lru_cache(maxsize=64)
def _weights(size: int, new_size: int) -> Array:
    """How much each old pixel counts in each new one: (new_size, size) float32, rows sum to 1.

    A triangle around each new pixel's centre, one old pixel wide to either side, or one new pixel where it shrinks.
    In float32 throughout, because the original is: in float64 large images differ by more than 1e-5.
    """
    pixels_per_new = np.float32(1) / np.float32(new_size / size)
    centres = (np.arange(new_size, dtype=np.float32) + np.float32(0.5)) * pixels_per_new - np.float32(0.5)
    distances = np.abs(centres[:, None] - np.arange(size, dtype=np.float32)) / max(pixels_per_new, np.float32(1))
    weights = np.maximum(0, 1 - distances)
    return weights / weights.sum(axis=1, keepdims=True)
