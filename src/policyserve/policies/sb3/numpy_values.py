"""NumPy's dtypes, arrays and scalars as pickles describe them.

An array is a view of the file's bytes, or a copy where they are not aligned, and never larger than they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.pickles import Thing, told_of

_CORES = ("numpy.core", "numpy._core")  # before NumPy 2 and since
_TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TYPES_BY_KIND = {f"numpy {name}": name for name in (*_TYPES, "bool_")}
_DTYPE = "numpy dtype"
_RECONSTRUCT = frozenset(f"{core}.multiarray _reconstruct" for core in _CORES)
_FROM_BUFFER = frozenset(f"{core}.numeric _frombuffer" for core in _CORES)
_SCALAR = frozenset(f"{core}.multiarray scalar" for core in _CORES)
# What a pickle with numbers in it may name.
NUMPY = frozenset((_DTYPE, "numpy ndarray", *_TYPES_BY_KIND)) | _RECONSTRUCT | _FROM_BUFFER | _SCALAR

_CODE = re.compile(r"(b1|\?|[iu][1248]|f[248])", re.ASCII)
_MOST_AXES = 32


def array_of(value: Any, told: str) -> Array:
    """The array that a Thing stands for, read-only; numbers are arrays without axes. Raises ConfigError."""
    if isinstance(value, (bool, int, float)):
        return _number(value, told)
    kind = value.kind if isinstance(value, Thing) else ""
    args = value.args if isinstance(value, Thing) and value.args is not None else ()
    if kind in _FROM_BUFFER and len(args) == 4:
        data, dtype, shape, order = args
        return _array(data, dtype, shape, order == "F", told)
    if kind in _RECONSTRUCT and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, is_fortran, data = value.state
        return _array(data, dtype, shape, is_fortran is True, told)
    if kind in _SCALAR and len(args) == 2:
        return _array(args[1], args[0], (), False, told)
    raise ConfigError(f"{told}: expected numbers, got {told_of(value)}")


def whole_number(value: Any, told: str, least: int, most: int) -> int:
    """A whole number, Python's or NumPy's, in its bounds; raises ConfigError."""
    number = array_of(value, told)
    if number.ndim or number.dtype.kind not in "iu" or not least <= int(number) <= most:
        got = number if not number.ndim else f"an array {number.shape}"
        raise ConfigError(f"{told}: expected a whole number from {least} to {most}, got {got}")
    return int(number)


def sizes_of(value: Any, told: str) -> tuple[int, ...]:
    """The sizes of an array's axes, as a tuple or a list has them; raises ConfigError."""
    if not isinstance(value, (tuple, list)) or len(value) > _MOST_AXES:
        raise ConfigError(f"{told}: expected the sizes of axes, got {type(value).__name__}")
    return tuple(whole_number(size, told, 0, 1 << 40) for size in value)


def dtype_of(value: Any, told: str) -> np.dtype[Any]:
    """The dtype that a Thing stands for, numbers and truth values only; raises ConfigError."""
    kind = value.kind if isinstance(value, Thing) else type(value).__name__
    if kind in _TYPES_BY_KIND:
        return np.dtype(_TYPES_BY_KIND[kind])
    if kind != _DTYPE or not value.args or not isinstance(value.args[0], str) or not _CODE.fullmatch(value.args[0]):
        named = told_of(value.args[0]) if kind == _DTYPE and value.args else kind
        raise ConfigError(f"{told}: expected a dtype of numbers, got {named}")
    state = value.state if isinstance(value.state, tuple) and len(value.state) > 4 else (3, "<", None, None, None)
    if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
        raise ConfigError(f"{told}: expected a dtype of numbers, got one with fields")
    return np.dtype(value.args[0]).newbyteorder(state[1])


def map_of(value: Any, told: str) -> Mapping[str, Any]:
    """A map, also an OrderedDict however it was pickled; raises ConfigError."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Thing) and value.kind == "collections OrderedDict" and value.args is not None:
        pairs = value.args[0] if value.args else []
        if isinstance(pairs, list) and all(map(_is_pair, pairs)):
            return {**dict(pairs), **value.items}
    raise ConfigError(f"{told}: expected a map, got {told_of(value)}")


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)


def _number(value: float, told: str) -> Array:
    array: Array = np.asarray(value)
    if array.dtype.kind == "O":
        raise ConfigError(f"{told}: expected a number of 64 bits, got a longer one")
    return array


def _array(data: Any, dtype: Any, shape: Any, is_fortran: bool, told: str) -> Array:
    kind, sizes = dtype_of(dtype, told), sizes_of(shape, told)
    if not isinstance(data, memoryview):
        raise ConfigError(f"{told}: expected an array's bytes, got {type(data).__name__}")
    if prod(sizes) * kind.itemsize != len(data):
        raise ConfigError(f"{told}: expected {prod(sizes) * kind.itemsize} bytes for {kind} {sizes}, got {len(data)}")
    if not len(data):
        raise ConfigError(f"{told}: expected numbers, got an array of none")
    array = np.frombuffer(data, kind)
    if not array.flags.aligned or not kind.isnative:
        array = array.astype(kind.newbyteorder("="))
    return array.reshape(sizes, order="F" if is_fortran else "C")
