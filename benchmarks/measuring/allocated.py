"""`policyserve` with another way to have memory for messages, for memory.py.

python -m measuring.allocated WAY serve measuring.policies:libero_inline
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from policyserve.cli import main as serve
from policyserve.core import memory
from policyserve.websocket import server_frames

from . import pool
from .ablated import give_back_what_is_freed, replace

_POOL_BYTES = 256 << 20


def allocate_by(allocate: Callable[[int], Any]) -> Callable[[], None]:
    """Another function in the place of the package's, and the C library's defaults."""

    def patch() -> None:
        give_back_what_is_freed()
        replace(server_frames, "allocate", allocate)

    return patch


def pool_buffers() -> None:
    """One pool for all connections, from which memory comes and to which it goes back."""
    give_back_what_is_freed()
    buffers = pool.BufferPool(_POOL_BYTES)
    replace(server_frames, "allocate", lambda size: memoryview(buffers.take(size))[:size])
    replace(memory, "give_back", buffers.shrink)


def pool_private() -> None:
    replace(pool, "mmap", lambda fd, size: _Private(fd, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    pool_buffers()


def pool_heap() -> None:
    replace(pool, "_LAZY", 1 << 62)
    pool_buffers()


class _Private(mmap.mmap):
    """A mapping of one's own."""


WAYS: Mapping[str, Callable[[], None]] = {
    "kept": lambda: None,
    "released": give_back_what_is_freed,
    "empty": allocate_by(lambda size: np.empty(size, np.uint8)),
    "zeros": allocate_by(bytearray),
    "pool": pool_buffers,
    "private": pool_private,
    "heap": pool_heap,
}

if __name__ == "__main__":
    WAYS[sys.argv[1]]()
    serve(sys.argv[2:])
