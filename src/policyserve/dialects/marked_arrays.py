"""Arrays inside MessagePack maps, each a small map with a marker key: openpi's spelling and msgpack_numpy's.

openpi          {b"__ndarray__": True, b"data": raw, b"dtype": "<f4", b"shape": [3]}, scalars b"__npgeneric__"
msgpack_numpy   {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [3], b"data": raw}, scalars b"nd": False

Marker keys are written as bin, read as bin or str. A map that holds a marker key with another value is just a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from policyserve.core.arrays import Array, read_array, read_dtype
from policyserve.core.errors import WireError

_NO_KIND = (None, b"", "")


@dataclass(frozen=True)
class Spelling:
    """One family's way to write arrays. read: a marked map -> array or scalar, None if the map carries no marker."""

    name: str
    read: Callable[[Mapping[str, Any], str], Any]
    write: Callable[[Any], Any]

    def unmark(self, value: Any, path: str = "") -> Any:
        """Replace every marked map in a decoded message by its array; raises WireError naming the path."""
        if isinstance(value, dict):
            found = self.read(value, path)
            if found is not None:
                return found
            prefix = f"{path}/" if path else ""
            return {key: self.unmark(inner, prefix + key) for key, inner in value.items()}
        if isinstance(value, memoryview):
            return bytes(value)  # a bin that is no array's: nobody expects a view
        if isinstance(value, list):
            return [self.unmark(inner, f"{path}[{index}]") for index, inner in enumerate(value)]
        return value

    def pack(self, message: Mapping[str, Any]) -> bytes:
        """Encode a map of str keys; raises TypeError for a value that the wire cannot carry."""
        packed = msgpack.packb(message, default=self.write, use_bin_type=True)
        assert isinstance(packed, bytes)
        return packed


def _read_openpi(value: Mapping[str, Any], path: str) -> Any:
    if value.get("__ndarray__") is True:
        _need(value, ("data", "dtype", "shape"), path)
        return read_array(value["data"], value["dtype"], value["shape"], path)
    if value.get("__npgeneric__") is True:
        _need(value, ("data", "dtype"), path)
        return _scalar(value["data"], value["dtype"], path)
    return None


def _write_openpi(value: Any) -> Any:
    array = _as_writable(value)
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": array.item(), b"dtype": array.dtype.str}
    return {
        b"__ndarray__": True,
        b"data": array.tobytes(),
        b"dtype": array.dtype.str,
        b"shape": list(array.shape),
    }


def _read_msgpack_numpy(value: Mapping[str, Any], path: str) -> Any:
    marker = value.get("nd")
    if marker is True:
        _need(value, ("type", "shape", "data"), path)
        if value.get("kind") not in _NO_KIND:
            raise WireError(path, "an array of plain numbers", "a structured one")
        return read_array(value["data"], value["type"], value["shape"], path)
    if marker is False:
        _need(value, ("type", "data"), path)
        return read_array(value["data"], value["type"], [], path)[()]
    if value.get("complex") is True:
        raise WireError(path, "a real number", "a complex one")
    return None


def _write_msgpack_numpy(value: Any) -> Any:
    array = _as_writable(value)
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": array.dtype.str, b"data": array.tobytes()}
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": list(array.shape),
        b"data": array.tobytes(),
    }


OPENPI = Spelling("openpi", _read_openpi, _write_openpi)
MSGPACK_NUMPY = Spelling("wall_x", _read_msgpack_numpy, _write_msgpack_numpy)


def spelling_of(value: Any) -> str | None:
    """The name of the spelling whose marker stands first in a decoded message; None if it holds no array."""
    if isinstance(value, dict):
        if "__ndarray__" in value or "__npgeneric__" in value:
            return OPENPI.name
        if "nd" in value and "type" in value:
            return MSGPACK_NUMPY.name
        return next((found for inner in value.values() if (found := spelling_of(inner))), None)
    if isinstance(value, list):
        return next((found for inner in value if (found := spelling_of(inner))), None)
    return None


def _need(value: Mapping[str, Any], keys: tuple[str, ...], path: str) -> None:
    for key in keys:
        if key not in value:
            raise WireError(path, f"an array with {', '.join(keys)}", f"no {key}")


def _scalar(data: Any, dtype: Any, path: str) -> Any:
    number = read_dtype(dtype, path)
    if not isinstance(data, (bool, int, float)):
        raise WireError(path, f"a {number} number", type(data).__name__)
    try:
        with np.errstate(all="ignore"):  # what does not fit a float becomes inf: the policy decides
            scalar = np.asarray(data).astype(number.newbyteorder("="))[()]
    except (OverflowError, ValueError) as error:
        raise WireError(path, f"a {number} number", f"{data!r:.40}") from error
    if number.kind in "iu" and scalar != data:
        raise WireError(path, f"a {number} number", f"{data!r:.40}")
    return scalar


def _as_writable(value: Any) -> Array:
    """The value as a little-endian array of numbers; raises TypeError for anything that is none."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"a {type(value).__name__} cannot be sent")
    array: Array = np.asarray(value)
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an array of {array.dtype} cannot be sent")
    return array
