"""How the C library keeps what large messages and batches have freed, so that the next ones cost no page faults.

glibc gives large blocks back to the kernel as soon as they are free; to take them again costs a page fault for every
4 KiB, which is half the time of a camera frame. Its thresholds hold for the whole process. Other C libraries are left
as they are.
"""

from __future__ import annotations

import ctypes
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt()'s names in malloc.h
_KEPT_BYTES = 256 << 20  # at the heap's end, of what is free
_LARGEST_KEPT = 32 << 20  # glibc's own limit: what is larger is always the kernel's


def keep_freed() -> None:
    """Keep up to 256 MiB of what is freed, in blocks of up to 32 MiB, until give_back()."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """Give the kernel all that is free, now. Whoever allocates waits meanwhile: 30 to 70 ms where 200 MB are free."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    """One of the C library's; None if it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # Windows
        return None
