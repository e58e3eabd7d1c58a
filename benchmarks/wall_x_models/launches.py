"""How many kernels a GPU would launch for some work, counted on any device from the operators that torch dispatches.

One for each operator that writes: it changes an argument in place, or gives a tensor of its own memory. Views, reshapes
and conversions that copy nothing, and memory that is only taken, launch nothing. In inference mode operators arrive as
they were called, not taken apart for the CPU: a norm, a linear layer and an attention count one each, as they are one
kernel each on a GPU (cuBLAS adds the bias; FlashAttention and the memory-efficient kernel read what they are given). So
is an operator of policyserve's own, whatever the plain code does that stands in for its kernel on a CPU.

Left out, before and after alike: copies from host memory, which a CPU does not make; the second kernel of a matrix
product that is split over its inner axis; what attention copies to pad a bias to whole vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_TAKES_MEMORY_ALONE = ("aten.empty", "aten.new_empty")


def count_launches(work: Callable[[], Any]) -> Counter[str]:
    """Run work once and count its kernels by operator. Call it in inference mode."""
    with _Counting() as counting:
        work()
    return counting.found


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))}
        is_new = any(tensor.untyped_storage().data_ptr() not in given for tensor in tensors_in(result))
        writes = func._schema.is_mutable and bool(given)  # what has no numbers launches nothing
        if (writes or is_new) and not str(func).startswith(_TAKES_MEMORY_ALONE):
            self.found[str(func)] += 1
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors that have numbers in them, in nested arguments or results."""
    if isinstance(value, Tensor):
        if value.numel():
            yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
