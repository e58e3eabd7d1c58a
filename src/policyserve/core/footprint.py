"""Tells how much memory a decoded value takes, so that what waits for the policy can be counted."""

from __future__ import annotations

from sys import getsizeof
from typing import Any

import numpy as np

from policyserve.core.encoded_images import EncodedImage

_NUMBER = 40  # bytes of one and of its place in a list, or more
_ARRAY = 256  # bytes of an array without its data
_COUNTED = frozenset((str, bytes, dict, list, np.ndarray, EncodedImage))  # what may be larger than a number


def footprint(value: Any) -> int:
    """About how many bytes a decoded value takes, without the data of arrays that are views of their message.

    An encoded picture counts as what it will be decoded to.
    """
    if isinstance(value, (dict, list)):
        took = getsizeof(value)
        if not value:
            return took
        inside: Any = value
        if isinstance(value, dict):
            took += sum(map(getsizeof, value))
            inside = value.values()
        if _COUNTED.isdisjoint(map(type, inside)):
            return took + len(value) * _NUMBER
        large = [one for one in inside if type(one) in _COUNTED]
        return took + (len(value) - len(large)) * _NUMBER + sum(map(footprint, large))
    if isinstance(value, np.ndarray):
        return _ARRAY + (value.nbytes if _owns_its_data(value) else 0)
    if isinstance(value, EncodedImage):
        return _ARRAY + value.nbytes
    return getsizeof(value) if isinstance(value, (str, bytes)) else _NUMBER


def _owns_its_data(array: np.ndarray[Any, Any]) -> bool:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is None
