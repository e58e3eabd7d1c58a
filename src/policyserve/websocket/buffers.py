"""Memory for one message, freed with its last view.

core/memory.py keeps freed memory for the next message. What is very large is the kernel's own pages instead: of memory
that is kept and used again all is in memory at once, also where a peer that announced 30 MB has sent a few bytes.
"""

from __future__ import annotations

import ctypes
import mmap

_LARGE = 4 << 20  # bytes; a robot's pictures are smaller, and fresh pages would cost them a third more time
_allocate = ctypes.pythonapi.PyByteArray_FromStringAndSize
_allocate.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_allocate.restype = ctypes.py_object


def allocate(size: int) -> bytearray | mmap.mmap:
    """`size` bytes, each of which holds anything until it is written. Raises MemoryError.

    bytearray(size) would write zeros, and so take all the memory when a peer has sent only the fourteen bytes that
    announce 64 MiB. numpy.empty() would take 2 MiB at the first byte, since it asks for huge pages from 4 MiB on.
    """
    if size < _LARGE or not hasattr(mmap, "MAP_PRIVATE"):  # which Windows lacks
        return _allocate(None, size)
    try:
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError from error
