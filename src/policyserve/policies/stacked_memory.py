"""Memory for stacked rows that is used again once nobody holds it, so that a batch of images costs no page faults.

A policy may keep what it is given, and a framework may still read it when the call has returned. So the reference count
of the array that owns the memory decides: every view of it refers to that array, and so does whatever is made of a view
without a copy (memoryview, torch.from_numpy, jax.numpy.asarray).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from math import prod
from threading import Lock
from typing import Any, TypeAlias

import numpy as np

from policyserve.core.arrays import Array

# A number of bytes -> so many uint8 in one dimension, writable, that nobody else refers to.
Allocate: TypeAlias = Callable[[int], Array]

_ALIGNMENT = 64  # a cache line; where it is missing, JAX copies once more
_SMALLEST = 1 << 16  # bytes, below which the allocator keeps its own blocks
_BLOCKS = 3  # of a key: the policy may still hold its last input, it works on one, and the next is stacked
_MOST_BYTES = 512 * 1024 * 1024  # of all keys, kept
_ALONE = 3  # references to an owner that nobody else holds: the block's two, and the count's own argument


class StackedMemory:
    """Blocks by key, grown to the largest stack that was asked for; for any thread.

    allocate: where blocks come from, pinned memory say; None: ordinary memory, where a stack is large enough to matter.
    """

    def __init__(self, allocate: Allocate | None = None) -> None:
        self._allocate = allocate
        self._blocks: dict[Hashable, list[_Block]] = {}
        self._lock = Lock()

    def take(self, key: Hashable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array with whatever it held before, that nobody else holds."""
        size = prod(shape) * dtype.itemsize
        if self._allocate is None and size < _SMALLEST:
            return np.empty(shape, dtype)
        with self._lock:  # until a view of the block is there, it seems free
            return self._free_block(key, size).memory[:size].view(dtype).reshape(shape)

    @property
    def kept_bytes(self) -> int:
        """What all blocks hold."""
        return sum(len(block.memory) for blocks in self._blocks.values() for block in blocks)

    def _free_block(self, key: Hashable, size: int) -> _Block:
        blocks = [block for block in self._blocks.get(key, ()) if len(block.memory) >= size]
        for block in blocks:
            if block.is_free:
                return block
        block = _Block((self._allocate or _aligned)(max(size, 1)))
        self._blocks[key] = [*blocks, block][-_BLOCKS:]
        if self.kept_bytes > _MOST_BYTES:
            del self._blocks[key]
        return block


class _Block:
    """A piece of memory and the array that its views refer to."""

    __slots__ = ("_owner", "memory")

    def __init__(self, memory: Array) -> None:
        self.memory = memory
        self._owner = memory[:0].base

    @property
    def is_free(self) -> bool:
        """Whether nobody holds a view."""
        return sys.getrefcount(self._owner) <= _ALONE


def _aligned(size: int) -> Array:
    whole = np.empty(size + _ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % _ALIGNMENT
    return whole[start : start + size]
