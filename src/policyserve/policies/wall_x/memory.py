"""What running out of memory looks like, on the host and on a GPU."""

from __future__ import annotations

# Of the host's allocator, of CUDA's (a graph's instantiation, loading a kernel, pinned memory), of cuBLAS's and cuDNN's
# workspaces: CUBLAS_STATUS_NOT_INITIALIZED is what cuBLAS says where its handle found no memory.
_ALLOCATORS_WORDS = (
    "allocate memory", "not enough memory", "CUDA error: out of memory", "CUDA_ERROR_OUT_OF_MEMORY",
    "STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that host or device has no memory left; torch's own class only exists with torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATORS_WORDS)
