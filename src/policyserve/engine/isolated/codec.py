"""Encodes values for a policy's process and back: as MessagePack, with large arrays in shared memory beside it.

Every type comes out as it went in: arrays (writable), NumPy's scalars, tuples, paths, policy specs. Dataclasses are
looked up by name: a server takes specs only, an adapter's own among them; a policy's process takes what it is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from policyserve.core import leaf_specs as leaves
from policyserve.core.arrays import Array
from policyserve.core.spec import PolicySpec

_INLINE = 2048  # bytes of an array, up to which copying it into the message costs less than a slot
_ALIGNMENT = 64
_SMALL_ARRAY, _LARGE_ARRAY, _TUPLE, _DATACLASS, _PATH, _SCALAR = range(1, 7)  # extension types

_PLAIN: tuple[Any, ...] = (str, list, int, float)
_SPEC_TYPES = (PolicySpec, leaves.ArraySpec, leaves.ImageSpec, leaves.TextSpec, leaves.TextListSpec)


class Packed:
    """A value as bytes. size: of the shared memory that its large arrays need, 0 if it has none.

    inline: bytes of an array, up to which it goes into the message.
    """

    def __init__(self, value: Any, inline: float = _INLINE) -> None:
        self.size = 0
        self._inline = inline
        self._arrays: list[tuple[int, Array]] = []
        self.data: bytes = self._pack(value)

    def write_arrays(self, memory: Array) -> None:
        """Copy the large arrays into `memory`, `size` bytes of uint8 at least."""
        for start, array in self._arrays:
            place = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            np.copyto(place, array)

    def pieces(self) -> list[memoryview]:
        """What write_arrays() writes, piece after piece; an array in one piece is not copied."""
        found: list[memoryview] = []
        end = 0
        for start, array in self._arrays:
            found += [memoryview(bytes(start - end))] if start > end else []
            found.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            end = start + array.nbytes
        return [*found, memoryview(bytes(self.size - end))] if self.size > end else found

    def _pack(self, value: Any) -> bytes:
        packed = msgpack.packb(value, default=self._write, strict_types=True, unicode_errors="surrogatepass")
        assert isinstance(packed, bytes)
        return packed

    def _write(self, value: Any) -> Any:
        """What MessagePack has no type for, as something that it has one for."""
        if isinstance(value, np.ndarray):
            return self._write_array(value)
        if isinstance(value, np.generic):
            return msgpack.ExtType(_SCALAR, self._pack([_dtype_name(value.dtype), value.tobytes()]))
        if isinstance(value, tuple):
            return msgpack.ExtType(_TUPLE, self._pack(list(value)))
        if is_dataclass(value) and not isinstance(value, type):
            name = f"{type(value).__module__}:{type(value).__qualname__}"
            content = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
            return msgpack.ExtType(_DATACLASS, self._pack([name, content]))
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, Path):
            return msgpack.ExtType(_PATH, str(value).encode("utf-8", "surrogateescape"))
        for plain in _PLAIN:  # a subclass of one
            if isinstance(value, plain):
                return plain(value)
        raise TypeError(f"{type(value).__name__} cannot go to another process")

    def _write_array(self, array: Array) -> Any:
        name = _dtype_name(array.dtype)
        if array.nbytes <= self._inline:
            return msgpack.ExtType(_SMALL_ARRAY, self._pack([name, list(array.shape), array.tobytes()]))
        start = self.size
        self._arrays.append((start, array))
        self.size = -(-(start + array.nbytes) // _ALIGNMENT) * _ALIGNMENT
        return msgpack.ExtType(_LARGE_ARRAY, self._pack([name, list(array.shape), start]))


def pack(value: Any) -> bytes:
    """A value as bytes that need no memory beside them: for what crosses once."""
    return Packed(value, inline=math.inf).data


def unpack(data: bytes, memory: Array | None = None, *, trusted: bool = False) -> Any:
    """Read a packed value; its large arrays are views of `memory`. trusted: dataclasses other than specs pass, too."""

    def read(code: int, content: bytes) -> Any:
        if code == _PATH:
            return Path(content.decode("utf-8", "surrogateescape"))
        parts = unpack(content, memory, trusted=trusted)
        if code == _TUPLE:
            return tuple(parts)
        if code == _SMALL_ARRAY:
            name, shape, raw = parts
            return np.frombuffer(raw, np.dtype(name)).reshape(shape).copy()
        if code == _SCALAR:
            name, raw = parts
            return np.frombuffer(raw, np.dtype(name))[0]
        if code == _LARGE_ARRAY:
            assert memory is not None
            name, shape, start = parts
            return _place(memory, np.dtype(name), shape, start)
        if code == _DATACLASS:
            name, arguments = parts
            return _class_named(name, trusted)(**arguments)
        raise ValueError(f"extension type {code}")

    return msgpack.unpackb(data, ext_hook=read, strict_map_key=False, unicode_errors="surrogatepass")


def _place(memory: Array, dtype: np.dtype[Any], shape: list[int], start: int) -> Array:
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    return memory[start : start + size].view(dtype).reshape(shape)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    if dtype.kind not in "biufcSUmM":
        raise TypeError(f"an array of {dtype} cannot go to another process")
    return dtype.str


def _class_named(name: str, trusted: bool) -> Any:
    module_name, _, path = name.partition(":")
    found: Any = import_module(module_name)
    for part in path.split("."):
        found = getattr(found, part)
    is_fine = is_dataclass(found) if trusted else isinstance(found, type) and issubclass(found, _SPEC_TYPES)
    if not is_fine:
        raise TypeError(f"a {name} cannot come from another process")
    return found
