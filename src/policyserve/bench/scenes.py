"""Pictures as cameras take them, made up: random numbers would be none, and no JPEG becomes small of them.

A room's light falls off, a table has a grain, boxes and a gripper have edges and shadows, and a sensor adds noise of
two levels. A JPEG of quality 90 takes 1.1 bits per pixel of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from policyserve.bench.payloads import Payload
from policyserve.core.arrays import Array

_BOXES = 12
_NOISE = 2.0  # levels of 255, of a sensor
_GRAIN = 6.0  # levels


def scene(height: int, width: int, seed: int = 0) -> Array:
    """A picture of boxes on a table, (height, width, 3) uint8; the same for the same seed."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    across, down = columns / width, rows / height
    light = 150 + 60 * np.cos(2.2 * (across - 0.4)) * np.cos(1.7 * (down - 0.3))
    grain = _GRAIN * np.sin(columns * 0.35 + 4 * np.sin(rows * 0.021)) * (down > 0.35)
    picture = (light + grain)[..., None] * np.array([1.0, 0.92, 0.8], np.float32)
    for _ in range(_BOXES):
        _add_box(picture, across, down, random)
    picture += random.normal(0, _NOISE, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _add_box(picture: Array, across: Array, down: Array, random: np.random.Generator) -> None:
    """A turned box of one colour, lit from one side, and its shadow."""
    x, y, turned = random.uniform(0.1, 0.9), random.uniform(0.3, 0.9), random.uniform(0, np.pi)
    half_width, half_height = random.uniform(0.03, 0.12, 2)
    along = (across - x) * np.cos(turned) + (down - y) * np.sin(turned)
    aside = (down - y) * np.cos(turned) - (across - x) * np.sin(turned)
    shadow = (np.abs(along - 0.02) < half_width) & (np.abs(aside - 0.02) < half_height)
    picture[shadow] *= 0.6
    inside = (np.abs(along) < half_width) & (np.abs(aside) < half_height)
    colour = random.uniform(40, 220, 3)
    picture[inside] = colour * (1 + 0.3 * along[inside] / half_width)[:, None]


def with_scenes(payload: Payload) -> Payload:
    """The same observation with a scene in place of each picture of bytes, (H, W, 3) or (3, H, W)."""
    return replace(payload, observation=_with_scenes(payload.observation))


def _with_scenes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_scenes(inner) for key, inner in value.items()}
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or 3 not in value.shape[::2]:
        return value
    if value.shape[-1] == 3:
        return scene(*value.shape[:2])
    return np.ascontiguousarray(scene(*value.shape[1:]).transpose(2, 0, 1))
