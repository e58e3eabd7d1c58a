"""What running out of memory looks like, on the host and on a GPU, and what CUDA graphs may take of a GPU's."""

from __future__ import annotations

MOST_GRAPH_BYTES = 4 << 30
ONE_GRAPH_BYTES = 64 << 20  # the driver's part of a graph of 10,000 kernels; an estimate, not measured yet
IMAGES_SHARE = 0.25  # of what graphs may take: those of the vision tower, which are small and few
_GRAPHS_SHARE = 0.1

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


def graph_bytes(total: float) -> int:
    """What all graphs of a model may take of a GPU with so many bytes."""
    return int(min(MOST_GRAPH_BYTES, total * _GRAPHS_SHARE))
