"""From observations to the row of numbers that a network of Stable-Baselines3 begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.mlp import Layer
from policyserve.policies.sb3.spaces import Box, Dict, Discrete, Leaf, MultiDiscrete
from policyserve.policies.sb3.weights import Weights

SINGLE = "obs"  # the key of an observation that is no Dict
Extract: TypeAlias = Callable[[Array], Array]  # (N, *shape) -> (N, F) float32
Features: TypeAlias = Callable[[Mapping[str, Any]], Array]

# NatureCNN: of each layer its channels out, the side of its kernel, its stride.
_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


def features_of(
    space: Leaf | Dict,
    weights: Weights,
    prefix: str,
    *,
    divides_images: bool,
    normalizers: Mapping[str, Extract],
) -> tuple[Features, int]:
    """The function of stacked observations, and how many numbers it gives.

    prefix: of the extractor's weights. divides_images: whether pictures become 0 … 1. normalizers: what comes first, by
    an observation's keys. Raises ConfigError.
    """
    if not isinstance(space, Dict):
        read = _reader(space, divides_images, normalizers.get(SINGLE))
        extract, width = _extract(space, read, weights, prefix)
        return (lambda observation: extract(observation[SINGLE])), width
    parts: dict[str, Extract] = {}
    width = 0
    for key, leaf in space.spaces.items():
        read = _reader(leaf, divides_images, normalizers.get(key))
        parts[key], more = _extract(leaf, read, weights, f"{prefix}extractors.{key}.")
        width += more

    def joined(observation: Mapping[str, Any]) -> Array:
        return np.concatenate([part(observation[key]) for key, part in parts.items()], axis=1)

    return joined, width


def choices_of(space: Leaf) -> tuple[int, ...]:
    """How many choices each number of an observation has; empty where any number is fine."""
    if isinstance(space, Discrete):
        return (space.count,)
    return space.counts if isinstance(space, MultiDiscrete) else ()


def as_channels_first(picture: Array, shape: tuple[int, ...]) -> Array:
    """(…, C, H, W), of pictures that are so or (…, H, W, C). shape: (C, H, W)."""
    return picture if picture.shape[-3:] == shape else np.moveaxis(picture, -1, -3)


def _extract(space: Leaf, read: Extract, weights: Weights, prefix: str) -> tuple[Extract, int]:
    if choices := choices_of(space):
        return (lambda rows: _one_hot(rows.reshape(len(rows), -1), choices)), space.width
    if not weights.has(f"{prefix}cnn."):
        return (lambda rows: read(rows).reshape(len(rows), -1)), space.width
    look, width = _nature(space, weights, prefix)
    return (lambda rows: look(read(rows))), width


def _reader(space: Leaf, divides_images: bool, normalize: Extract | None) -> Extract:
    """Rows as float32, in the order of axes that the network has."""
    prepare = normalize or _as_float32
    if not isinstance(space, Box) or not space.is_image:
        return prepare
    shape, scale = space.shape, np.float32(255) if divides_images else np.float32(1)
    return lambda rows: prepare(as_channels_first(rows, shape)) / scale


def _as_float32(rows: Array) -> Array:
    return rows.astype(np.float32, copy=False)


def _one_hot(rows: Array, choices: tuple[int, ...]) -> Array:
    """(N, choices) of whole numbers that are in their range."""
    hot = np.zeros((len(rows), sum(choices)), np.float32)
    starts = np.cumsum((0, *choices[:-1]))
    hot[np.arange(len(rows))[:, None], starts + rows] = 1
    return hot


def _nature(space: Leaf, weights: Weights, prefix: str) -> tuple[Extract, int]:
    """The convolutions of NatureCNN and the layer behind them."""
    if len(space.shape) != 3:
        raise ConfigError(f"{weights.told}: {prefix}cnn: expected pictures for a CNN, got {space}")
    channels, height, width = space.shape
    layers: list[tuple[Layer, int, int]] = []
    for place, (outputs, side, stride) in enumerate(_NATURE):
        name = f"{prefix}cnn.{2 * place}"
        kernel = weights.take(f"{name}.weight", outputs, channels, side, side)
        layers.append((Layer(kernel.reshape(outputs, -1), weights.take(f"{name}.bias", outputs)), side, stride))
        channels, height, width = outputs, (height - side) // stride + 1, (width - side) // stride + 1
        if height < 1 or width < 1:
            told = f"{weights.told}: {name}"
            raise ConfigError(f"{told}: expected pictures of 36 x 36 pixels or more for a NatureCNN, got {space}")
    linear = weights.layer(f"{prefix}linear.0", channels * height * width)

    def look(rows: Array) -> Array:
        for layer, side, stride in layers:
            rows = np.maximum(_convolved(rows, layer, side, stride), 0)
        rows = rows.reshape(len(rows), -1) @ linear.weight.T + linear.bias
        return np.maximum(rows, 0)

    return look, len(linear.bias)


def _convolved(rows: Array, layer: Layer, side: int, stride: int) -> Array:
    """(N, C, H, W) to (N, O, h, w): each window as one row of a matrix product."""
    windows = np.lib.stride_tricks.sliding_window_view(rows, (side, side), axis=(2, 3))[:, :, ::stride, ::stride]
    count, _, height, width, _, _ = windows.shape
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(count * height * width, -1)  # (N h w, C side side)
    products = columns @ layer.weight.T + layer.bias
    return products.reshape(count, height, width, -1).transpose(0, 3, 1, 2)
