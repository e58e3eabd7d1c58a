"""A camera's picture, however a client sent it, in one layout."""

from __future__ import annotations

from collections.abc import Sequence

from policyserve.core.arrays import Array


def as_last(picture: Array, shape: Sequence[int]) -> Array:
    """A picture with channels as its last axis. shape: (channels, height, width), as a feature has it."""
    channels, height, width = shape
    return picture if picture.shape == (height, width, channels) else picture.transpose(1, 2, 0)
