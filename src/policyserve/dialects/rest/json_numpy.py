"""Arrays as json-numpy's clients write them, in its three spellings.

in a map     {"__numpy__": base64, "dtype": "<f4", "shape": [7]}
in a text    the same as a text in the JSON (X-VLA)
as a whole   {"encoded": text of the whole body}, which is answered by a text, too
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, read_array
from policyserve.core.errors import WireError
from policyserve.dialects.marked_arrays import ArraysLeft
from policyserve.dialects.rest.base64_text import read_base64
from policyserve.dialects.views import below

MARK = "__numpy__"
ENCODED = "encoded"
_CONTAINERS = frozenset((dict, list))


def unmarked(value: Any, left: ArraysLeft) -> Any:
    """Replace every marked map by its array, in place; raises WireError with the path. left: counts arrays."""
    if isinstance(value, dict):
        if MARK in value:
            left.take()
            return _read(value)
        for key, inner in value.items():
            if type(inner) in _CONTAINERS:
                value[key] = _inside(key, inner, left)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if type(inner) in _CONTAINERS:
                value[index] = _inside(f"[{index}]", inner, left)
    return value


def _inside(place: str, value: Any, left: ArraysLeft) -> Any:
    try:
        return unmarked(value, left)
    except WireError as error:
        raise below(place, error) from None


def _read(value: Mapping[str, Any]) -> Array:
    for key in ("dtype", "shape"):
        if key not in value:
            raise WireError("", f"an array with {MARK}, dtype, shape", f"no {key}")
    data = value[MARK]
    if not isinstance(data, str):
        raise WireError(MARK, "base64, a text", type(data).__name__)
    return read_array(read_base64(data, MARK), value["dtype"], value["shape"], "")


def marked(array: Array) -> dict[str, Any]:
    """The map of an array."""
    data = binascii.b2a_base64(np.ascontiguousarray(array).tobytes(), newline=False).decode()
    return {MARK: data, "dtype": array.dtype.str, "shape": list(array.shape)}


def written(value: Any, is_spaced: bool = False) -> str:
    """A JSON text of maps, lists, texts, numbers and arrays. is_spaced: as json-numpy itself writes it.

    Raises TypeError and ValueError for what JSON has no form for.
    """
    separators = (", ", ": ") if is_spaced else (",", ":")
    return json.dumps(value, separators=separators, default=_default, allow_nan=False)


def _default(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        return marked(np.asarray(value))
    raise TypeError(f"a {type(value).__name__}, which JSON has no form for")
