"""Pictures of any size in the size that a policy was trained with, where --resize asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from policyserve.core.arrays import Array
from policyserve.policies.lerobot.config import Feature
from policyserve.policies.lerobot.options import Resizing
from policyserve.policies.lerobot.policy import Fit


def fits_of(images: Iterable[Feature], how: Resizing | None) -> Mapping[str, Fit]:
    """What makes a picture fit each feature, by the feature's name; nothing where pictures are not to be resized."""
    return {} if how is None else {one.name: partial(fitted, shape=one.shape, how=how) for one in images}


def fitted(picture: Array, shape: Sequence[int], how: Resizing) -> Array:
    """A picture (h, w, 3) or (3, h, w) as (height, width, 3) of the same scale. shape: (3, height, width).

    pad keeps what is on it in proportion, in the middle of a black one. Bilinear, antialiased where it shrinks. uint8
    stays uint8, floats become float32.
    """
    channels, height, width = shape
    last = picture if picture.shape[-1] == channels else picture.transpose(1, 2, 0)
    if last.shape[:2] == (height, width):
        return last
    size = (height, width) if how == "stretch" else _within(height, width, *last.shape[:2])
    resized = _resized(last if last.dtype == np.uint8 else last.astype(np.float32), size)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    around = (left, width - size[1] - left, top, height - size[0] - top)
    return np.ascontiguousarray(functional.pad(resized, around)[0].permute(1, 2, 0).numpy())


def _within(height: int, width: int, old_height: int, old_width: int) -> tuple[int, int]:
    """The largest size of the old proportions that fits."""
    scale = min(height / old_height, width / old_width)
    return max(1, min(height, round(old_height * scale))), max(1, min(width, round(old_width * scale)))


def _resized(picture: Array, size: tuple[int, int]) -> Tensor:
    channels_first = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]  # (1, 3, h, w)
    return functional.interpolate(channels_first, size, mode="bilinear", antialias=True)
