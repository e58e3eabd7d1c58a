"""Arrays inside MessagePack maps, each a small map with a marker key: three families' spellings.

openpi          {b"__ndarray__": True, b"data": raw, b"dtype": "<f4", b"shape": [3]}, scalars b"__npgeneric__"
vla_eval        as openpi's, but with texts as keys; scalars are plain numbers
msgpack_numpy   {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [3], b"data": raw}, scalars b"nd": False

Marker keys are read as bin or str. A map that holds a marker key with another value is just a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, Bin, read_array, read_dtype
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import WireError
from policyserve.core.messages import Part
from policyserve.dialects.marked_images import mark_image, read_image
from policyserve.dialects.packing import Parts, bin_header, map_header, packed, packed_key
from policyserve.dialects.sendable import encoded_key, told
from policyserve.dialects.views import below

# Of plain numbers; vLLM-Omni's clients may send the dtype's letter. Others are a pickle or a structure.
_PLAIN_KINDS = (None, b"", "", *"biuf", b"b", b"i", b"u", b"f")
_ARRAYS_PER_IMAGE = 8  # as so many arrays an encoded picture counts, whose header is read, too
_CONTAINERS = frozenset((dict, list, memoryview, Bin))  # what unmark() changes, or looks into


class ArraysLeft:
    """How many arrays more one message may hold."""

    __slots__ = ("_left", "_max_arrays")

    def __init__(self, max_arrays: int) -> None:
        self._left = self._max_arrays = max_arrays

    def take(self, count: int = 1) -> None:
        """Count one, or several; raises WireError if that is too many."""
        self._left -= count
        if self._left < 0:
            raise WireError("", f"at most {self._max_arrays} arrays", "more")


@dataclass(frozen=True)
class Spelling:
    """One family's way to write arrays.

    read: a marked map -> array or scalar, None if the map carries no marker. mark: dtype, shape and data of an array ->
    its marked map. mark_scalar: a NumPy scalar, as an array -> its marked map.
    """

    name: str
    read: Callable[[Mapping[str, Any], str], Any]
    mark: Callable[[str, tuple[int, ...], bytes], Any]
    mark_scalar: Callable[[Array], Any]

    def unmark(self, value: Any, left: ArraysLeft | None = None) -> Any:
        """Replace every marked map in a decoded message, in place, by its array; raises WireError naming the path.

        left: counts them, in a request, where encoded pictures are read, too. None: any number, of a server's message.
        """
        if isinstance(value, dict):
            found = self.read(value, "")
            if found is None and left is not None:
                found = read_image(value)
                if found is not None:
                    left.take(_ARRAYS_PER_IMAGE - 1)
            if found is not None:
                if left is not None:
                    left.take()
                return found
            if not _CONTAINERS.isdisjoint(map(type, value.values())):
                self._unmark_inside(value, value.items(), left)
        elif isinstance(value, (memoryview, Bin)):
            return bytes(value)  # a bin that is no array's: nobody expects a view
        elif isinstance(value, list) and not _CONTAINERS.isdisjoint(map(type, value)):
            self._unmark_inside(value, enumerate(value), left)
        return value

    def _unmark_inside(self, value: Any, items: Iterable[tuple[Any, Any]], left: ArraysLeft | None) -> None:
        for place, inner in items:
            if type(inner) not in _CONTAINERS:
                continue
            try:
                value[place] = self.unmark(inner, left)
            except WireError as error:
                raise below(place if isinstance(value, dict) else f"[{place}]", error) from None

    def pack(self, message: Mapping[str, Any]) -> bytes:
        """Encode a map of str keys; raises TypeError for a value that the wire cannot carry."""
        return packed(message, default=self.write)

    def parts(self, message: Mapping[str, Any]) -> list[Part]:
        """The bytes of pack(), in pieces: the data of large arrays is not copied."""
        parts = Parts()
        self._add(message, parts)
        return parts.finish()

    def around_data(self, array: Array) -> tuple[bytes, bytes]:
        """What stands before and after the data of an array of numbers on the wire."""
        return _around_data(self.mark, array.dtype, array.shape)

    def write(self, value: Any) -> Any:
        """The marked map of an array, a NumPy scalar, or what NumPy can make an array of; raises for anything else.

        Of an encoded picture the map that says so: only for servers that have said that they take it.
        """
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, EncodedImage):
            return mark_image(value)
        array = _as_writable(value)
        if isinstance(value, np.generic):
            return self.mark_scalar(array)
        return self.mark(array.dtype.str, array.shape, array.tobytes())

    def _add(self, value: Any, parts: Parts) -> None:
        if isinstance(value, dict):
            parts.add(map_header(len(value)))
            for key, inner in value.items():
                parts.add(packed_key(key) if type(key) is str else packed(encoded_key(key).decode()))
                self._add(inner, parts)
        elif isinstance(value, np.ndarray):
            array = _as_writable(value)
            before, after = self.around_data(array)
            parts.add(before)
            parts.add_data(array)
            parts.add(after)
        else:
            parts.add(packed(value, default=self.write))


_NO_DATA = packed(b"data") + packed(b"")


@lru_cache(maxsize=1024)
def _around_data(
    mark: Callable[[str, tuple[int, ...], bytes], Any], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> tuple[bytes, bytes]:
    """What stands before and after an array's data on the wire."""
    before, _, after = packed(mark(dtype.str, shape, b"")).partition(_NO_DATA)
    return before + packed(b"data") + bin_header(prod(shape) * dtype.itemsize), after


def _read_openpi(value: Mapping[str, Any], path: str) -> Any:
    if value.get("__ndarray__") is True:
        _need(value, ("data", "dtype", "shape"), path)
        return read_array(value["data"], value["dtype"], value["shape"], path)
    if value.get("__npgeneric__") is True:
        _need(value, ("data", "dtype"), path)
        return _scalar(value["data"], value["dtype"], path)
    return None


def _mark_openpi(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": list(shape)}


def _openpi_scalar(array: Array) -> Any:
    return {b"__npgeneric__": True, b"data": array.item(), b"dtype": array.dtype.str}


def _read_msgpack_numpy(value: Mapping[str, Any], path: str) -> Any:
    marker = value.get("nd")
    if marker is True:
        _need(value, ("type", "shape", "data"), path)
        if value.get("kind") not in _PLAIN_KINDS:
            raise WireError(path, "an array of plain numbers", "a structured one")
        return read_array(value["data"], value["type"], value["shape"], path)
    if marker is False:
        _need(value, ("type", "data"), path)
        return read_array(value["data"], value["type"], [], path)[()]
    if value.get("complex") is True:
        raise WireError(path, "a real number", "a complex one")
    return None


def _mark_msgpack_numpy(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    return {b"nd": True, b"type": dtype, b"kind": b"", b"shape": list(shape), b"data": data}


def _msgpack_numpy_scalar(array: Array) -> Any:
    return {b"nd": False, b"type": array.dtype.str, b"data": array.tobytes()}


def _mark_vla_eval(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    return {"__ndarray__": True, "data": data, "dtype": dtype, "shape": list(shape)}


OPENPI = Spelling("openpi", _read_openpi, _mark_openpi, _openpi_scalar)
VLA_EVAL = Spelling("vla_eval", _read_openpi, _mark_vla_eval, lambda array: array.item())
MSGPACK_NUMPY = Spelling("wall_x", _read_msgpack_numpy, _mark_msgpack_numpy, _msgpack_numpy_scalar)


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
    """The value as an array of numbers: a tensor's or a picture's, too. Raises TypeError for anything that is none."""
    if type(value) is np.ndarray and value.dtype.kind in "biuf":
        return value
    array: Array = np.asarray(value)
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{told(value)} cannot be sent")
    return array
