"""Reads what a policy says besides its actions into plain values, once: then nobody else runs a stranger's code.

A policy may give any object that can be made a map or an array of: a tensor, a file's group, a map that computes. It is
read where the policy runs, since the event loop, which writes answers, must neither wait for it nor see it raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.limits import DEFAULT_LIMITS

_PLAIN_TYPES = {str, int, float, bool, type(None), bytes, bytearray, memoryview}
_OF_SUBCLASSES = ((str, str.__str__), (int, int.__int__), (float, float.__float__))  # not by their own methods
_NUMBERS = "biuf"


def plain_map(value: Any) -> dict[str, Any]:
    """A map as a dict, its inner maps, lists and arrays plain as far as clients could read them; itself if it is that.

    Raises what reading the map raises. A value within that cannot be read stays as it is: who writes it says which.
    """
    return _Reader().map_of(value, 0)


class _Reader:
    """Reads no deeper and no more than a dialect would write; the rest stays as it is, and is refused there."""

    def __init__(self) -> None:
        self._left = DEFAULT_LIMITS.max_items

    def map_of(self, value: Any, depth: int) -> dict[str, Any]:
        items = value if type(value) is dict else dict(value)
        read = {key: self._read(inner, depth) for key, inner in items.items()}
        is_same = items is value and all(read[key] is inner for key, inner in items.items())
        return value if is_same else read

    def _read(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > DEFAULT_LIMITS.max_depth:
            return value
        try:
            kind = type(value)
            is_plain = kind in _PLAIN_TYPES or kind is np.ndarray or issubclass(kind, np.generic)
            return value if is_plain else self._read_object(value, depth)
        except BaseException:  # a stranger's object and class, which may raise anything
            return value

    def _read_object(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if issubclass(kind, (list, tuple)):
            read = [self._read(inner, depth + 1) for inner in value]
            is_same = kind in (list, tuple) and all(one is other for one, other in zip(read, value, strict=True))
            return value if is_same else read
        if isinstance(value, Mapping):
            return self.map_of(value, depth + 1)
        for plain, made in _OF_SUBCLASSES:
            if issubclass(kind, plain):
                return made(value)
        array = np.asarray(value)
        if array.dtype.name == "bfloat16":
            return array.astype(np.float32)
        return array if array.dtype.kind in _NUMBERS and type(array) is np.ndarray else value
