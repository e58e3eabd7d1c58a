"""Finds pictures that a client scaled to 0 … 1 before it made them uint8, so that they hold only 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array


def binary_pictures(value: Any, path: str = "") -> Iterator[str]:
    """The paths of an observation's colour pictures, uint8 with an axis of 3, that hold a 1 and nothing larger.

    Each is looked at when it is asked for.

    One that is black says nothing: a camera may be off. What has no axis of 3 may be a mask, which holds 0 and 1.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, (np.ndarray, Mapping)):
                yield from binary_pictures(inner, f"{path}/{key}" if path else str(key))
    elif isinstance(value, np.ndarray) and _is_picture(value) and value.max() == 1:
        yield path


def _is_picture(array: Array) -> bool:
    return array.dtype == np.uint8 and array.ndim >= 3 and array.size > 0 and 3 in (array.shape[-1], array.shape[-3])
