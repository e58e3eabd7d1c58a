"""Fits pictures into a size without distortion, equal to openpi-client's to the byte. Needs Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import MissingDependency

BILINEAR = 2  # PIL.Image.Resampling.BILINEAR


def resize_with_pad(images: Array, height: int, width: int, method: int = BILINEAR) -> Array:
    """Fit images into height × width without distortion, black around them.

    images: (..., H, W, C) uint8. Returns (..., height, width, C) uint8; the same object if it fits already.
    method: one of PIL.Image.Resampling. The scaled size is rounded down, and so is the margin at the top and left.
    Raises TypeError for other dtypes and channels than Pillow knows.
    """
    *batch, old_height, old_width, channels = images.shape
    if (old_height, old_width) == (height, width):
        return images
    scale = max(old_width / width, old_height / height)
    size = (int(old_width / scale), int(old_height / scale))  # as Pillow has it: width first
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    padded = np.zeros((*batch, height, width, channels), images.dtype)
    frames = images.reshape(-1, old_height, old_width, channels)
    for frame, place in zip(frames, padded.reshape(-1, height, width, channels), strict=True):
        place[top : top + size[1], left : left + size[0]] = _resize(frame, size, method)
    return padded


def _resize(image: Array, size: tuple[int, int], method: int) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency("Pillow", "images") from error
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling(method)))
