"""Arrays as NumPy's .npy bytes, version 1.0: read strictly, written as NumPy writes them.

The header is a Python literal. NumPy evaluates it and makes room for what it says; here a pattern reads it, and the
bytes that came are counted before there is an array.
"""

from __future__ import annotations

import re
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, Buffer, array_from_buffer, read_dtype, read_shape
from policyserve.core.errors import WireError

_BEGIN = b"\x93NUMPY\x01\x00"
_FIXED = len(_BEGIN) + 2  # and the header's size, two bytes
_LONGEST_HEADER = 1024  # 32 sizes fit
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,4})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), ?\} *\n?", re.ASCII
)
_DIGITS = 18  # of one size: more are no array's


def read_npy(data: Buffer, path: str) -> Array:
    """Read an array of numbers, as core.arrays.read_array() makes one; raises WireError naming `path`."""
    view = memoryview(data)
    if bytes(view[: len(_BEGIN)]) != _BEGIN or len(view) < _FIXED:
        raise WireError(path, "an array as .npy bytes of version 1.0", f"{bytes(view[: len(_BEGIN)])!r}")
    size = int.from_bytes(view[len(_BEGIN) : _FIXED], "little")
    header = bytes(view[_FIXED : _FIXED + min(size, _LONGEST_HEADER)])
    found = _HEADER.fullmatch(header) if len(header) == size else None
    if found is None:
        raise WireError(path, "an .npy header of descr, fortran_order and shape", f"{header[:60]!r}")
    descr, is_fortran, sizes = found.groups()
    dtype = read_dtype(descr, path)
    shape = _shape_of(sizes.decode(), path)
    rest = view[_FIXED + size :]
    if is_fortran == b"True":
        return np.ascontiguousarray(array_from_buffer(rest, dtype, shape[::-1], path).T).reshape(shape)
    return array_from_buffer(rest, dtype, shape, path)


def npy_bytes(dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    """The .npy bytes of an array whose raw bytes, in C order, are `data`."""
    return _header(dtype, shape) + data


def _shape_of(sizes: str, path: str) -> tuple[int, ...]:
    numbers = [size.strip() for size in sizes.split(",")]
    if numbers[-1] == "":  # behind the comma of a tuple of one, and where there is none
        numbers.pop()
    if not all(number.isdecimal() and len(number) <= _DIGITS for number in numbers):
        raise WireError(path, "a shape of non-negative ints", f"({sizes[:60]})")
    return read_shape([int(number) for number in numbers], path)


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    facts: dict[str, Any] = {"descr": dtype, "fortran_order": False, "shape": shape}
    written = BytesIO()
    np.lib.format.write_array_header_1_0(written, facts)
    return written.getvalue()
