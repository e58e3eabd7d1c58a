"""Images as openpi's robots prepare them: equal to openpi-client's, to the byte. Needs the extra `images`."""

from __future__ import annotations

import numpy as np

from policyserve.core.arrays import Array
from policyserve.transforms.fitting import resize_with_pad

__all__ = ["convert_to_uint8", "resize_with_pad"]


def convert_to_uint8(img: Array) -> Array:
    """A float image of 0 … 1 as uint8, scaled by 255 and cut off, not rounded; any other image as it is."""
    return (255 * img).astype(np.uint8) if img.dtype.kind == "f" else img
