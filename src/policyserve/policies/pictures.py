"""How a camera's picture becomes a model's input, where --image says so: nothing in the file does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, names_told
from policyserve.core.leaf_specs import ImageSpec

_RULE = re.compile(r"\s*(?P<key>[^=,]+)=uint8:(?P<layout>HWC|CHW)(/(?P<divisor>\d+(\.\d+)?))?\s*")
_EXPECTED = "KEY=uint8:HWC/255, by commas"


@dataclass(frozen=True)
class Picture:
    """A rule: clients send uint8 in this order of axes, and the model gets it divided, in the order that it has."""

    layout: str
    divisor: float

    def spec(self, key: str, shape: Sequence[int | None]) -> ImageSpec:
        """What clients send for an input of this shape (of one observation); raises ConfigError for no image's."""
        if len(shape) != 3 or 3 not in (shape[0], shape[2]):
            raise ConfigError(f"--image: {key}: expected an input of 3 channels, got one of the shape {tuple(shape)}")
        height, width = shape[1:] if is_channels_first(shape) else shape[:2]
        scale = f", which the model gets divided by {self.divisor:g}" if self.divisor != 1 else ""
        return ImageSpec(height, width, (self.layout,), ("uint8",), f"a picture{scale}")

    def convert(self, rows: Array, shape: Sequence[int | None], dtype: str) -> Array:
        """Pictures (N, …) as clients send them as the model's input of this shape and dtype."""
        wanted = "CHW" if is_channels_first(shape) else "HWC"
        order = (0, *(1 + self.layout.index(axis) for axis in wanted))
        pictures: Array = np.ascontiguousarray(rows.transpose(order)).astype(dtype)
        return pictures if self.divisor == 1 else pictures / np.asarray(self.divisor, dtype)

    def converter(self, shape: Sequence[int | None], dtype: str) -> Callable[[Array], Array]:
        """convert() for an input of this shape and dtype."""
        return lambda rows: self.convert(rows, shape, dtype)


def read_pictures(text: str | None) -> Mapping[str, Picture]:
    """What stands behind --image, by the input's name; raises ConfigError."""
    found: dict[str, Picture] = {}
    for part in [] if text is None else text.split(","):
        rule = _RULE.fullmatch(part)
        divisor = float(rule["divisor"] or 1) if rule else 0.0
        if rule is None or divisor == 0:
            raise ConfigError(f"image: expected {_EXPECTED}, got {part.strip() or 'nothing'!r}")
        found[rule["key"].strip()] = Picture(rule["layout"], divisor)
    return found


def check_pictures(pictures: Mapping[str, Any], inputs: Sequence[str]) -> None:
    """Raise ConfigError for a rule about an input that is not there."""
    for name in pictures:
        if name not in inputs:
            raise ConfigError(f"--image: expected one of the model's inputs, {names_told(inputs)}, got {name!r}")


def is_channels_first(shape: Sequence[int | None]) -> bool:
    """Whether an image's three channels are its first axis; where both ends are 3, it is taken for that."""
    return shape[0] == 3


def native_image(shape: Sequence[int | None], dtype: str, doc: str) -> ImageSpec | None:
    """The spec of an input that is a picture by its dtype and shape; None if it is none."""
    if dtype != "uint8" or len(shape) != 3 or 3 not in (shape[0], shape[2]):
        return None
    is_first = is_channels_first(shape)
    height, width = shape[1:] if is_first else shape[:2]
    return ImageSpec(height, width, ("CHW" if is_first else "HWC",), ("uint8",), doc)
