"""Checks, before they are sent, that clients can read the metadata and extras of a policy.

MessagePack carries more than its readers take: numbers as keys, maps nested beyond their bound, a map whose keys mean
an array to one family. Such a message would end in the client's decoder, where nobody learns which policy is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import MAX_DIMENSIONS
from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS
from policyserve.dialects.marked_arrays import Spelling
from policyserve.dialects.packing import packed
from policyserve.dialects.sendable import EXPECTED, cure, encoded_key, told

_MAX_ITEMS = 16_384  # map entries, list items, maps and lists: what older clients take, and REPLY_LIMITS take more
_MAX_BYTES = 1 << 30  # of one message, as this package's clients take it
_PLAIN = {bool, float, type(None), bytes}
_ARRAY_ITEMS = 7  # map entries of a marked array at most, its map and its shape's list


def check_readable(message: Mapping[str, Any], spelling: Spelling) -> None:
    """Raise WireError with the path of what a client of this spelling could not read in `message`.

    Bounds are those of this package's clients; the original ones have none.
    """
    _Check(spelling).value(message, "", 0)


class _Check:
    """One message's check. It counts as a reader does: an array is a map with a list in it."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._items = _MAX_ITEMS
        self._bytes = _MAX_BYTES

    def value(self, value: Any, path: str, depth: int) -> None:
        """Check one value that stands below `depth` maps and lists."""
        kind = type(value)
        if kind in _PLAIN or (kind is str and value.isascii()):
            return
        if isinstance(value, Mapping):
            self._enter(len(value), path, depth)
            self._check_no_array(value, path)
            for key, inner in value.items():
                encoded_key(key, path)
                self.value(inner, f"{path}/{key}" if path else key, depth + 1)
        elif isinstance(value, (list, tuple)):
            self._enter(len(value), path, depth)
            for index, inner in enumerate(value):
                self.value(inner, f"{path}[{index}]", depth + 1)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            self._array(value, path, depth)
        else:
            self._other(value, path, depth)

    def _enter(self, count: int, path: str, depth: int) -> None:
        if depth > DEFAULT_LIMITS.max_depth:
            raise WireError(path, f"at most {DEFAULT_LIMITS.max_depth} levels of nesting", "more")
        self._items -= count + 1
        if self._items < 0:
            raise WireError(path, f"at most {_MAX_ITEMS} map entries and list items in all", "more")

    def _check_no_array(self, value: Mapping[str, Any], path: str) -> None:
        try:
            is_array = self._spelling.read(value, path) is not None
        except WireError:
            is_array = True
        if is_array:
            raise WireError(path, "a map", f"one whose keys mean an array to {self._spelling.name}'s clients")

    def _array(self, array: np.ndarray[Any, Any], path: str, depth: int) -> None:
        self._enter(_ARRAY_ITEMS + array.ndim, path, depth + 1)
        self._bytes -= array.nbytes
        if array.ndim > MAX_DIMENSIONS:
            raise WireError(path, f"at most {MAX_DIMENSIONS} dimensions", f"{array.ndim}")
        if self._bytes < 0:
            raise WireError(path, f"at most {_MAX_BYTES >> 20} MiB in all", "more")

    def _other(self, value: Any, path: str, depth: int) -> None:
        """A text, an integer, or what the spelling makes an array of."""
        try:
            written = value if isinstance(value, (int, str, bytearray, memoryview)) else self._spelling.write(value)
            packed(written)
        except Exception as error:  # a stranger's object, whose conversion may raise anything
            raise WireError(path, EXPECTED, told(value), cure(value)) from error
        if isinstance(value, np.generic):
            self._enter(_ARRAY_ITEMS, path, depth)
        elif isinstance(written, dict):
            self._enter(_ARRAY_ITEMS + MAX_DIMENSIONS, path, depth + 1)
