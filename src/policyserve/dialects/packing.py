"""Writes MessagePack in pieces: the data of large arrays is not copied into the message; the socket takes it."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import msgpack
import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.messages import Part

_APART = 4096  # bytes, from which an array is a piece of its own; smaller ones are copied between their neighbours


class Parts:
    """The pieces of one message, in the order in which they are added."""

    def __init__(self) -> None:
        self._done: list[Part] = []
        self._small: list[bytes] = []  # since the last large array

    def add(self, packed: bytes) -> None:
        """Append bytes that are MessagePack already."""
        self._small.append(packed)

    def add_data(self, array: Array) -> None:
        """Append an array's raw bytes, in C order."""
        if array.nbytes < _APART:
            self._small.append(array.tobytes())
            return
        self._done.append(b"".join(self._small))
        self._small.clear()
        self._done.append(_flat(array))

    def finish(self) -> list[Part]:
        """All pieces."""
        if self._small:
            self._done.append(b"".join(self._small))
        return self._done


def _flat(array: Array) -> memoryview:
    """An array's bytes in C order, its own memory where that is so."""
    try:
        return array.data.cast("B")
    except (TypeError, ValueError, NotImplementedError):  # in another order, or a dtype that memoryview does not know
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def joined(parts: list[Part]) -> bytes:
    """The message as one piece."""
    return parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)


def map_header(count: int) -> bytes:
    """What stands before the entries of a map."""
    if count < 16:
        return bytes((0x80 | count,))
    return struct.pack(">BH", 0xDE, count) if count < 1 << 16 else struct.pack(">BI", 0xDF, count)


def bin_header(size: int) -> bytes:
    """What stands before a bin's bytes; raises ValueError beyond 4 GiB."""
    if size < 1 << 8:
        return bytes((0xC4, size))
    if size < 1 << 16:
        return struct.pack(">BH", 0xC5, size)
    if size < 1 << 32:
        return struct.pack(">BI", 0xC6, size)
    raise ValueError(f"an array of {size} bytes, and MessagePack ends at {(1 << 32) - 1}")


@lru_cache(maxsize=1024)
def packed_key(key: str) -> bytes:
    """A map's key; the same ones come in every message."""
    return packed(key)


def packed(value: Any, **options: Any) -> bytes:
    """Any value, as `msgpack` packs it."""
    made = msgpack.packb(value, use_bin_type=True, **options)
    assert isinstance(made, bytes)
    return made
