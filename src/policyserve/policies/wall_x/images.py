"""A camera's array to the vision tower's patches, to the bit as Pillow and the original do it.

ndarray → RGB or gray picture → bicubic to 256 pixels on the long side → bicubic to multiples of 28 → patches.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, sqrt
from typing import Any, Literal

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import BadObservation, MissingDependency

ImageLayout = Literal["any", "HWC", "CHW"]

PATCH = 14  # pixels
PATCH_LEVELS = 3 * PATCH**2  # numbers of a patch
CELL = 28  # pixels: two patches become one token
_LONG_SIDE = 256
_MIN_PIXELS, _MAX_PIXELS = 56 * 56, 12_845_056
_MAX_RATIO = 200
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def import_pillow() -> Any:
    """Import Pillow's Image; raises MissingDependency."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency("Pillow", "wall-x") from error
    return Image


def read_image(image: Any, path: str, layout: ImageLayout = "any") -> Array:
    """Turn a camera's array into (H, W, 3) or gray (H, W) uint8.

    image: HWC, CHW, gray HW, or one of the first two with a leading axis of 1; uint8, or floats in 0 … 1. layout: what
    three axes are. Raises BadObservation with the camera's `path` for everything else, and for both at once.
    """
    if not isinstance(image, np.ndarray):
        raise BadObservation(path, "an image", type(image).__name__)
    got = describe(image.dtype, image.shape)
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise BadObservation(path, "an image of uint8, or of floats in 0 … 1", got)
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    picture = image if image.ndim == 2 else _channels_last(image, path, got, layout)
    height, width = picture.shape[:2]
    if min(height, width) < 2:
        raise BadObservation(path, "an image of at least 2 pixels a side", got)
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise BadObservation(path, f"an image whose sides differ by at most {_MAX_RATIO} times", got)
    return picture if picture.dtype == np.uint8 else _from_floats(picture, path, got)


def resize_image(picture: Array, path: str, *, long_side_256: bool = True) -> Array:
    """Resize a picture as the model was trained with; (H, W[, 3]) uint8, both sides multiples of 28.

    Raises BadObservation if the picture is too long for its width, or the other way round.
    """
    image = import_pillow().fromarray(np.ascontiguousarray(picture))
    for size in resize_steps(image.width, image.height, path, long_side_256=long_side_256):
        image = _resized(image, size)
    return np.asarray(image)


def resize_steps(width: int, height: int, path: str, *, long_side_256: bool = True) -> list[tuple[int, int]]:
    """The (width, height) of each resize that a picture of this size goes through; the last is in whole cells.

    Raises BadObservation if the picture is too long for its width, or the other way round.
    """
    first = [_fit_long_side(width, height, path)] if long_side_256 else []
    return [*first, _fit_cells(*(first[-1] if first else (width, height)), path)]


def image_patches(picture: Array) -> tuple[Array, tuple[int, int]]:
    """Cut a resized picture into patches: (N, 588) uint8 and the grid's (rows, columns).

    Row order: 2 × 2 patches of a cell, cells in raster order. A row: channel 3, y 14, x 14. They are normalised where
    the network is: what travels there is an eighth of the network's numbers.
    """
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    rows, columns = picture.shape[0] // PATCH, picture.shape[1] // PATCH
    cells = picture.reshape(rows // 2, 2, PATCH, columns // 2, 2, PATCH, 3)
    return cells.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, PATCH_LEVELS), (rows, columns)


@lru_cache(maxsize=1)
def level_statistics() -> tuple[Array, Array]:
    """Mean and deviation of each channel's gray levels 0 … 255, both (3, 1) float32, as the original rounds them."""
    scale = np.float32(1 / 0.00392156862745098)
    mean, std = (np.array(values, np.float32)[:, None] * scale for values in (_MEAN, _STD))
    return mean, std


def _channels_last(image: Array, path: str, got: str, layout: ImageLayout) -> Array:
    """A view (H, W, 3) of a color image."""
    if image.ndim != 3:
        raise BadObservation(path, "an image of 2 or 3 axes, or 4 of which the first is 1", got)
    is_hwc, is_chw = image.shape[2] == 3, image.shape[0] == 3
    if layout != "any":
        is_hwc, is_chw = is_hwc and layout == "HWC", is_chw and layout == "CHW"
    if is_hwc and is_chw:
        hint = "tell the server which of the two its cameras send (image_layout)"
        raise BadObservation(path, "an image that is either HWC or CHW", f"{got}, which can be both", hint)
    if not is_hwc and not is_chw:
        wanted = "3 channels, first or last" if layout == "any" else f"3 channels, {layout}"
        four = ", which looks like 4 channels (RGBA)" if 4 in (image.shape[0], image.shape[2]) else ""
        raise BadObservation(path, f"an image of {wanted}", got + four)
    return image if is_hwc else image.transpose(1, 2, 0)


def _from_floats(picture: Array, path: str, got: str) -> Array:
    low, high = picture.min(), picture.max()
    if not (low >= 0 and high <= 1):  # NaN fails both
        values = "NaN" if np.isnan(low) or np.isnan(high) else f"{low:.6g} … {high:.6g}"
        raise BadObservation(path, "floats in 0 … 1", f"{got} of {values}", "send uint8 for 0 … 255")
    return (picture * 255).astype(np.uint8)  # truncated, as the original does


def _resized(image: Any, size: tuple[int, int]) -> Any:
    return image if image.size == size else image.resize(size, import_pillow().Resampling.BICUBIC)


def _fit_long_side(width: int, height: int, path: str) -> tuple[int, int]:
    if width > height:
        size = (_LONG_SIDE, int(_LONG_SIDE * height / width))
    else:
        size = (int(_LONG_SIDE * width / height), _LONG_SIDE)
    if min(size) * _MAX_RATIO < max(size):
        got = f"{width} × {height}, which is {size[0]} × {size[1]} after the first resize"
        raise BadObservation(path, f"an image whose sides differ by at most {_MAX_RATIO} times", got)
    return size


def _fit_cells(width: int, height: int, path: str) -> tuple[int, int]:
    """Both sides rounded to whole cells, the area kept between the model's bounds."""
    if max(width, height) > _MAX_RATIO * min(width, height):
        raise BadObservation(path, f"an image whose sides differ by at most {_MAX_RATIO} times", f"{width} × {height}")
    size = (max(CELL, round(width / CELL) * CELL), max(CELL, round(height / CELL) * CELL))
    if size[0] * size[1] > _MAX_PIXELS:
        shrink = sqrt(width * height / _MAX_PIXELS)
        return tuple(max(CELL, floor(side / shrink / CELL) * CELL) for side in (width, height))  # type: ignore[return-value]
    if size[0] * size[1] < _MIN_PIXELS:
        grow = sqrt(_MIN_PIXELS / (width * height))
        return ceil(width * grow / CELL) * CELL, ceil(height * grow / CELL) * CELL
    return size
