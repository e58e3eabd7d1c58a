"""The weights of the network that acts, taken by name: each has the shape that is expected, and none is left over."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError, names_told
from policyserve.policies.mlp import Layer
from policyserve.policies.sb3.tensors import StateDict

_EXPORT = "a network of your own: export it to ONNX and serve the .onnx file, see docs/sb3.md"
_TOLD = 3  # names of those that nobody expects


class Weights:
    """A state dict of which some is taken; all methods raise ConfigError that begins with the file and a name."""

    def __init__(self, tensors: StateDict, told: str) -> None:
        self._tensors, self.told = tensors, told
        self._taken: set[str] = set()

    def has(self, prefix: str) -> bool:
        """Whether a name begins so."""
        return any(name.startswith(prefix) for name in self._tensors.tensors)

    def take(self, name: str, *shape: int | None) -> Array:
        """A float32 array of this shape, in which None is any size."""
        if name not in self._tensors.tensors:
            raise ConfigError(f"{self.told}: expected {name} in policy.pth, got {names_told(self._tensors.tensors)}")
        found = self._tensors.shape(name)
        fits = len(found) == len(shape) and all(want in (None, size) for want, size in zip(shape, found, strict=True))
        if not fits or 0 in found:
            wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
            raise ConfigError(f"{self.told}: {name}: expected the shape {wanted}, got {found}")
        array = self._tensors.read(name)
        if array.dtype != np.float32:
            raise ConfigError(f"{self.told}: {name}: expected float32, got {describe(array.dtype, array.shape)}")
        self._taken.add(name)
        return np.ascontiguousarray(array)

    def layer(self, name: str, inputs: int, outputs: int | None = None) -> Layer:
        """A linear layer of so many inputs."""
        weight = self.take(f"{name}.weight", outputs, inputs)
        return Layer(weight, self.take(f"{name}.bias", len(weight)))

    def sequence(self, prefix: str, inputs: int) -> list[Layer]:
        """The linear layers of a Sequential in which activations stand between them: at 0, 2, 4 and so on."""
        places = sorted({int(found[1]) for name in self._tensors.tensors if (found := _place_of(name, prefix))})
        layers: list[Layer] = []
        for expected, place in enumerate(places):
            if place != 2 * expected:
                raise ConfigError(f"{self.told}: {prefix}{place}: expected layers at 0, 2, 4 …, got {_EXPORT}")
            layers.append(self.layer(f"{prefix}{place}", inputs))
            inputs = len(layers[-1].bias)
        return layers

    def check_all_taken(self, ignored: Sequence[str]) -> None:
        """Raise ConfigError for names that were not taken and begin with none of `ignored`."""
        others = [name for name in self._tensors.tensors if name not in self._taken]
        unknown = [name for name in others if not name.startswith(tuple(ignored))]
        if unknown:
            named = ", ".join(name[:60] for name in unknown[:_TOLD])
            more = f" and {len(unknown) - _TOLD} more" if len(unknown) > _TOLD else ""
            raise ConfigError(
                f"{self.told}: expected the weights of Stable-Baselines3's own networks, got {named}{more}: {_EXPORT}"
            )


def _place_of(name: str, prefix: str) -> re.Match[str] | None:
    return re.match(r"([0-9]{1,4})\.", name.removeprefix(prefix), re.ASCII) if name.startswith(prefix) else None
