"""CUDA graphs: work on a state of fixed shapes, captured once and replayed without the host's part.

A state's tensors are copied into others of the same shapes that stay where they are, with rows up to a power of two:
few shapes occur, and each has one graph. The rows that nobody uses hold old numbers, and their results are not read.
Each graph keeps a state of its own, a cache included, so they are bounded by their bytes.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from policyserve.core.log import Log
from policyserve.policies.wall_x.memory import MOST_GRAPH_BYTES, ONE_GRAPH_BYTES

log = Log(__name__)

Work = Callable[[], object]
Capture = Callable[[Work], Work]


class State(Protocol):
    """What work is done on."""

    @property
    def key(self) -> Hashable:
        """What must be equal, besides the tensors' shapes, for two states to share a graph."""
        ...

    @property
    def shape(self) -> str:
        """How large it is, for the log."""
        ...

    def tensors(self) -> list[tuple[Tensor, int | None]]:
        """All tensors, each with the axis of the batch's rows."""
        ...

    def replace(self, tensors: list[Tensor]) -> State:
        """The same state around other tensors, in the order of `tensors`."""
        ...


S = TypeVar("S", bound=State)


@dataclass(frozen=True)
class Captured(Generic[S]):
    """A state that stays where it is, and the works on it. size: bytes of them all."""

    state: S
    replays: tuple[Work, ...]
    size: int

    def replay(self, which: int = 0) -> None:
        self.replays[which]()


class Graphs(Generic[S]):
    """Graphs of one kind of work, the latest used ones kept.

    works: what is done on a state, each recorded on its own when a state of its shape is met for the first time.
    max_bytes: what they take together; one is kept however large. is_serving: whether somebody waits for what is being
    computed, so that a recording is told as a warning.
    """

    def __init__(
        self, works: Sequence[Callable[[S], object]], capture: Capture, max_bytes: int = MOST_GRAPH_BYTES
    ) -> None:
        self.is_serving = False
        self.max_bytes = max_bytes
        self._works, self._capture = works, capture
        self._graphs: OrderedDict[Hashable, Captured[S]] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of all that are kept."""
        return sum(one.size for one in self._graphs.values())

    def forget(self) -> None:
        """Drop all graphs, with their states."""
        self._graphs.clear()

    def enter(self, state: S) -> Captured[S]:
        """Copy a state to where its graph works. Its rows are the first ones there."""
        wide = [_widened(tensor.shape, axis) for tensor, axis in state.tensors()]
        key = (state.key, tuple(wide))
        if key not in self._graphs:
            self._graphs[key] = self._make(state, wide)
        self._graphs.move_to_end(key)
        found = self._graphs[key]
        for (target, axis), (source, _) in zip(found.state.tensors(), state.tensors(), strict=True):
            part = target if axis is None else target.narrow(axis, 0, source.shape[axis])
            part.copy_(source)
            if axis is not None and not target.is_floating_point():
                target.narrow(axis, source.shape[axis], target.shape[axis] - source.shape[axis]).zero_()
        return found

    def _make(self, state: S, wide: list[tuple[int, ...]]) -> Captured[S]:
        pairs = list(zip(state.tensors(), wide, strict=True))
        size = sum(math.prod(shape) * tensor.element_size() for (tensor, _), shape in pairs)
        size += len(self._works) * ONE_GRAPH_BYTES
        while self._graphs and self.size + size > self.max_bytes:  # before the new one takes its part
            self._graphs.popitem(last=False)
        with torch.inference_mode(False):  # whose tensors could not be written to by a batch outside of it
            zeros = [tensor.new_zeros(shape) for (tensor, _), shape in pairs]
        fixed: S = state.replace(zeros)  # pyright: ignore[reportAssignmentType]
        started_at = time.monotonic()
        replays = tuple(self._capture(partial(work, fixed)) for work in self._works)
        tell = log.warning if self.is_serving else log.debug
        tell("recorded a CUDA graph in %.0f ms: %s", (time.monotonic() - started_at) * 1e3, fixed.shape)
        return Captured(fixed, replays, size)


def _widened(shape: torch.Size, axis: int | None) -> tuple[int, ...]:
    """A shape with its rows up to a power of two."""
    return tuple(1 << (n - 1).bit_length() if place == axis else n for place, n in enumerate(shape))
