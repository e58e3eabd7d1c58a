"""A policy of a Wall-X model's spec without a model, for trying clients and robots' plumbing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ImageSpec, PolicySpec

NOTICE = "no Wall-X model: a stand-in whose actions are numbers without a meaning and control nothing"


def stand_in(spec: PolicySpec) -> FunctionPolicy:
    """Answer numbers in -1 … 1 that depend on every part of the observation, the same ones always."""
    cameras = [path for path, leaf in spec.leaves.items() if isinstance(leaf, ImageSpec)]
    assert spec.action is not None
    shape = (spec.horizon or 1, *spec.action.example().shape)

    def answer(observation: dict[str, Any]) -> Array:
        prompt = crc32(observation["prompt"].encode("utf-8", "replace")) / 2**32
        brightness = [_brightness(observation[camera]) for camera in cameras]
        features = np.array([prompt, *brightness, *np.tanh(np.nan_to_num(observation["state"].astype(float)))])
        waves = np.sin(np.outer(np.arange(1, features.size + 1), np.arange(1, np.prod(shape) + 1)))
        return np.tanh(features @ waves).reshape(shape).astype(np.float32)

    return FunctionPolicy(answer, replace(spec, metadata={**spec.metadata, "stand_in": NOTICE}))


def _brightness(image: Array) -> float:
    scale = 255.0 if image.dtype == np.uint8 else 1.0
    return float(np.tanh(np.nan_to_num(image).mean(dtype=float) / scale))
