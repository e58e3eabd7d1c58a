"""Arrays out of strangers' bytes, safely.

Only fixed-size numbers pass (bool, int, uint, float of any width and byte order). Object dtypes would unpickle or
crash, structured and void ones hide either, text and dates are no observation: all refused by name.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from policyserve.core.errors import WireError

Array = NDArray[Any]
Buffer = bytes | bytearray | memoryview

MAX_DIMENSIONS = 32
_MAX_ELEMENTS = 1 << 40  # zero sizes left out: (0, 10**18) is empty, and NumPy still cannot make it
_MAX_DTYPE_NAME = 32
_NUMBER_KINDS = "biuf"


class Placed(NamedTuple):
    """An array or a float64, and where its data stands in the message that it was read from."""

    value: Array | float
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Bin(bytes):
    """A message's bin that knows where it stands; read_array() notes in `placed` the array that it makes of it."""

    start: int
    placed: list[Placed]

    @classmethod
    def at(cls, data: Buffer, start: int, placed: list[Placed]) -> Bin:
        """The bin `data`, which begins at byte `start` of its message."""
        made = cls(data)
        made.start, made.placed = start, placed
        return made


def read_array(data: object, dtype: object, shape: object, path: str) -> Array:
    """Build an array from its parts as they came off a wire.

    data: bytes-like, C order. dtype: its name, "<f4" or "float32". shape: a list of non-negative ints.
    Returns a writable, aligned array in native byte order: a view of `data` where that is a writable memoryview (it is
    the message's own buffer then), else a copy. Raises WireError naming `path`.
    """
    number = read_dtype(dtype, path)
    sizes = read_shape(shape, path)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise WireError(path, "the array's raw bytes", type(data).__name__)
    array = array_from_buffer(data, number, sizes, path)
    if isinstance(data, Bin):
        data.placed.append(Placed(array, data.start, number, sizes))
    return array


def array_from_buffer(data: Buffer, dtype: np.dtype[Any], shape: tuple[int, ...], path: str) -> Array:
    """An array of `dtype` and `shape`, as read_array() makes it; raises WireError if the sizes do not match."""
    expected = prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise WireError(path, f"{expected} bytes for {describe(dtype, shape)}", f"{len(data)} bytes")
    flat = np.frombuffer(data, dtype)
    if dtype.kind == "b":
        return (flat.view(np.uint8) != 0).reshape(shape)  # any non-zero byte is true: other bits are not a valid bool
    if isinstance(data, memoryview) and flat.flags.writeable and flat.flags.aligned and flat.dtype.isnative:
        return flat.reshape(shape)
    return flat.astype(dtype.newbyteorder("=")).reshape(shape)


def read_dtype(name: object, path: str) -> np.dtype[Any]:
    """Look up a number dtype by the name that a client sent; raises WireError for every other kind."""
    text = name[: _MAX_DTYPE_NAME + 1].decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        raise WireError(path, "a dtype name such as '<f4'", type(name).__name__)
    if text == "bfloat16":
        raise WireError(path, "a NumPy dtype", "bfloat16", "send float32 or float16 instead")
    dtype = _number_dtype(text) if len(text) <= _MAX_DTYPE_NAME else None
    if dtype is None:
        raise WireError(path, "a bool, int, uint or float dtype", f"dtype {text[:_MAX_DTYPE_NAME]!r}")
    return dtype


@lru_cache(maxsize=256)
def _number_dtype(text: str) -> np.dtype[Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated spellings of dtypes that are refused below anyway
            dtype = np.dtype(text)
    except Exception:  # a stranger's text: NumPy raises TypeError, SyntaxError, ValueError and more for it
        return None
    plain = dtype.kind in _NUMBER_KINDS and dtype.names is None and dtype.subdtype is None
    return dtype if plain else None


def read_shape(shape: object, path: str) -> tuple[int, ...]:
    """Check the sizes that a client sent; raises WireError for what is no list of them, or fits in no memory."""
    if not isinstance(shape, (list, tuple)):
        raise WireError(path, "a shape: a list of sizes", type(shape).__name__)
    if len(shape) > MAX_DIMENSIONS:
        raise WireError(path, f"at most {MAX_DIMENSIONS} dimensions", f"{len(shape)}")
    for size in shape:
        if type(size) is not int or size < 0:
            got = str(size) if type(size) is int else type(size).__name__  # a stranger's value: its repr has no bound
            raise WireError(path, "a shape of non-negative ints", f"{got} in it")
    if prod(size or 1 for size in shape) > _MAX_ELEMENTS:
        raise WireError(path, "a shape that fits in memory", f"{shape!r:.60}")
    return tuple(shape)


def describe(dtype: np.dtype[Any] | str, shape: tuple[int | None, ...]) -> str:
    """Name a dtype and shape for people: `float32 (4,)`, with `*` for a free size."""
    sizes = ", ".join("*" if size is None else str(size) for size in shape)
    return f"{dtype} ({sizes},)" if len(shape) == 1 else f"{dtype} ({sizes})"
