"""Memory for one message, freed with its last view; core/memory.py keeps freed memory for the next message."""

from __future__ import annotations

import ctypes

_allocate = ctypes.pythonapi.PyByteArray_FromStringAndSize
_allocate.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_allocate.restype = ctypes.py_object


def allocate(size: int) -> bytearray:
    """`size` bytes, each of which holds anything until it is written. Raises MemoryError.

    bytearray(size) would write zeros, and so take all the memory when a peer has sent only the fourteen bytes that
    announce 64 MiB. numpy.empty() would take 2 MiB at the first byte, since it asks for huge pages from 4 MiB on.
    """
    return _allocate(None, size)
