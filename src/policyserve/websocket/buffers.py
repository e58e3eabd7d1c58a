"""Memory for one message. It is freed with the last view of it, and core/memory.py has the C library keep it."""

from __future__ import annotations

import ctypes

_allocate = ctypes.pythonapi.PyByteArray_FromStringAndSize
_allocate.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_allocate.restype = ctypes.py_object


def allocate(size: int) -> bytearray:
    """`size` bytes, each of which holds anything until it is written. Raises MemoryError.

    bytearray(size) would write zeros into all of them, and a peer sends fourteen bytes to announce 64 MiB. (So would
    numpy.empty() take 2 MiB at the first byte: from 4 MiB on it asks for huge pages.)
    """
    return _allocate(None, size)
