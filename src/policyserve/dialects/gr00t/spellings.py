"""How GR00T's clients write arrays: N1.5 and N1.6 as .npy bytes, N1.7 as msgpack_numpy does.

N1.5, N1.6   {"__ndarray_class__": True, "as_npy": bytes}
N1.7         {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [3], b"data": raw}

Both are read in every message, and an answer is written as its request was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.arrays import Array
from policyserve.core.errors import WireError
from policyserve.dialects.gr00t.npy import npy_bytes, read_npy
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY, Spelling

_MARKER, _DATA = "__ndarray_class__", "as_npy"
_CONTAINERS = frozenset((dict, list))


def _read(value: Mapping[str, Any], path: str) -> Any:
    if value.get(_MARKER) is not True:
        return MSGPACK_NUMPY.read(value, path)
    data = value.get(_DATA)
    if not isinstance(data, (bytes, memoryview)):
        raise WireError(path, f"an array with {_DATA} bytes", f"no {_DATA}" if data is None else type(data).__name__)
    return read_npy(data, path)


def _mark(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    return {_MARKER: True, _DATA: npy_bytes(dtype, shape, data)}


def _mark_scalar(array: Array) -> Any:
    return _mark(array.dtype.str, array.shape, array.tobytes())


NPY = Spelling("gr00t", _read, _mark, _mark_scalar)
ND = Spelling("gr00t", _read, MSGPACK_NUMPY.mark, MSGPACK_NUMPY.mark_scalar)


def spelling_shown(value: Any) -> Spelling | None:
    """How the first array in a decoded message is written; None if there is none."""
    if isinstance(value, dict):
        if value.get(_MARKER) is True:
            return NPY
        if "nd" in value and "type" in value:
            return ND
    if not isinstance(value, (dict, list)):
        return None
    for inner in value.values() if isinstance(value, dict) else value:
        found = spelling_shown(inner) if type(inner) in _CONTAINERS else None
        if found is not None:
            return found
    return None
