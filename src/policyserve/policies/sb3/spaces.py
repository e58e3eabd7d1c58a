"""Gymnasium's and Gym's spaces, as a zip's `data` describes them, and what they say of observations and actions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, names_told
from policyserve.policies.sb3.numpy_values import NUMPY, array_of, dtype_of, map_of, sizes_of, whole_number
from policyserve.policies.sb3.pickles import Thing, read_pickle, told_of

_KINDS = {
    f"{library}.spaces.{module} {name}": name
    for library in ("gymnasium", "gym")
    for module, name in (
        ("box", "Box"),
        ("discrete", "Discrete"),
        ("multi_discrete", "MultiDiscrete"),
        ("multi_binary", "MultiBinary"),
        ("dict", "Dict"),
        ("tuple", "Tuple"),
        ("text", "Text"),
        ("graph", "Graph"),
        ("sequence", "Sequence"),
    )
}
# Spaces carry the random generator that they sample with; it is looked past.
_GENERATORS = frozenset(
    {
        "numpy.random._pickle __generator_ctor",
        "numpy.random._pickle __bit_generator_ctor",
        "numpy.random._pickle __randomstate_ctor",
        "numpy.random._pcg64 PCG64",
        "numpy.random._mt19937 MT19937",
        "numpy.random.bit_generator SeedSequence",
        "numpy.random.bit_generator __pyx_unpickle_SeedSequence",
        "gym.utils.seeding RandomNumberGenerator",
        "gym.utils.seeding RandomNumberGenerator._generator_ctor",
    }
)
SPACES = frozenset(_KINDS) | _GENERATORS | NUMPY | {"collections OrderedDict"}
_MOST_CHOICES = 1 << 20  # of one Discrete: an observation of it becomes as many numbers
_SERIALIZED = ":serialized:"


@dataclass(frozen=True, eq=False)
class Box:
    """Numbers in bounds. low, high: arrays of the shape."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: Array
    high: Array

    @property
    def width(self) -> int:
        """How many numbers a network sees of it."""
        return prod(self.shape)

    @property
    def is_bounded(self) -> bool:
        """Whether all bounds, and the spans between them, are finite."""
        with np.errstate(all="ignore"):
            return bool(np.isfinite(self.high.astype(np.float32) - self.low.astype(np.float32)).all())

    @property
    def is_image(self) -> bool:
        """Whether Stable-Baselines3 takes it for a picture, and divides it by 255."""
        is_uint8 = len(self.shape) == 3 and self.dtype == np.uint8
        return is_uint8 and not self.low.any() and bool((self.high == 255).all())

    def __str__(self) -> str:
        return f"Box {self.dtype} {self.shape}"


@dataclass(frozen=True)
class Discrete:
    """One of `count` choices."""

    count: int
    start: int = 0
    shape: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """A one-hot vector."""
        return self.count

    def __str__(self) -> str:
        return f"Discrete({self.count})"


@dataclass(frozen=True)
class MultiDiscrete:
    """Several choices at once."""

    counts: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.counts),)

    @property
    def width(self) -> int:
        """One-hot vectors, one behind the other."""
        return sum(self.counts)

    def __str__(self) -> str:
        return f"MultiDiscrete({list(self.counts)})"


@dataclass(frozen=True)
class MultiBinary:
    """Numbers that are 0 or 1."""

    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        return prod(self.shape)

    def __str__(self) -> str:
        return f"MultiBinary{self.shape}"


@dataclass(frozen=True)
class Dict:
    """Spaces by name, in the file's order, which is that of the network's inputs."""

    spaces: Mapping[str, Leaf]


Leaf: TypeAlias = Box | Discrete | MultiDiscrete | MultiBinary


def read_space(described: Any, told: str) -> Leaf | Dict:
    """The space that one entry of a zip's `data` holds; raises ConfigError."""
    encoded = described.get(_SERIALIZED) if isinstance(described, dict) else None
    if not isinstance(encoded, str):
        raise ConfigError(f"{told}: expected a space with its pickle in {_SERIALIZED!r}, got none")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"{told}: expected base64, got {error}") from error
    return space_of(read_pickle(data, told, SPACES), told)


def space_of(thing: Any, told: str) -> Leaf | Dict:
    """The space that a Thing stands for; raises ConfigError."""
    if _kind_of(thing) != "Dict":
        return _leaf(thing, told)
    spaces = map_of(map_of(thing.state, told).get("spaces"), told)
    if not spaces:
        raise ConfigError(f"{told}: expected a Dict of spaces, got an empty one")
    return Dict({name: _leaf(space, f"{told}/{name:.60}") for name, space in spaces.items()})


def _leaf(thing: Any, told: str) -> Leaf:
    kind = _kind_of(thing)
    make = _LEAVES.get(kind)
    if make is None:
        expected = names_told(_LEAVES)
        raise ConfigError(f"{told}: expected one of {expected} or a Dict of them, as Stable-Baselines3, got {kind}")
    return make(map_of(thing.state, told), told)


def _kind_of(thing: Any) -> str:
    return _KINDS.get(thing.kind, thing.kind) if isinstance(thing, Thing) else told_of(thing)


def _box(state: Mapping[str, Any], told: str) -> Box:
    shape = sizes_of(state.get("_shape", state.get("shape")), told)
    dtype = dtype_of(state.get("dtype"), told).newbyteorder("=")
    low, high = (array_of(state.get(name), f"{told}: {name}") for name in ("low", "high"))
    if low.shape != shape or high.shape != shape or np.isnan(low).any() or np.isnan(high).any():
        raise ConfigError(f"{told}: expected bounds of the box's shape {shape}, got {low.shape} and {high.shape}")
    return Box(shape, dtype, low, high)


def _discrete(state: Mapping[str, Any], told: str) -> Discrete:
    count = whole_number(state.get("n"), f"{told}: n", 1, _MOST_CHOICES)
    return Discrete(count, whole_number(state.get("start", 0), f"{told}: start", -(1 << 62), 1 << 62))


def _multi_discrete(state: Mapping[str, Any], told: str) -> MultiDiscrete:
    counts = array_of(state.get("nvec"), f"{told}: nvec")
    if counts.ndim != 1 or not counts.size or counts.dtype.kind not in "iu" or counts.min() < 1:
        raise ConfigError(f"{told}: nvec: expected a vector of whole numbers, got {counts.dtype} {counts.shape}")
    if sum(counts.tolist()) > _MOST_CHOICES:
        raise ConfigError(f"{told}: nvec: expected {_MOST_CHOICES} choices at most, got {sum(counts.tolist())}")
    return MultiDiscrete(tuple(counts.tolist()))


def _multi_binary(state: Mapping[str, Any], told: str) -> MultiBinary:
    shape = sizes_of(state.get("_shape", state.get("shape")), told)
    if not 0 < prod(shape) <= _MOST_CHOICES:
        raise ConfigError(f"{told}: expected 1 to {_MOST_CHOICES} numbers, got {shape}")
    return MultiBinary(shape)


_LEAVES = {"Box": _box, "Discrete": _discrete, "MultiDiscrete": _multi_discrete, "MultiBinary": _multi_binary}
