"""CUDA graphs: work on a state of fixed shapes, captured once and replayed without the host's part.

A state's tensors are copied into others of the same shapes that stay where they are, with rows up to a power of two:
few shapes occur, and each has one graph. The rows that nobody uses hold old numbers, and their results are not read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Work = Callable[[], object]
Capture = Callable[[Work], Work]

_MAX_GRAPHS = 16  # each keeps a cache of its own


class State(Protocol):
    """What work is done on."""

    @property
    def key(self) -> Hashable:
        """What must be equal, besides the tensors' shapes, for two states to share a graph."""
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
    """A state that stays where it is, and the work on it."""

    state: S
    replay: Work


class Graphs(Generic[S]):
    """Graphs of one kind of work, the latest used ones kept."""

    def __init__(self, work: Callable[[S], object], capture: Capture) -> None:
        self._work, self._capture = work, capture
        self._graphs: OrderedDict[Hashable, Captured[S]] = OrderedDict()

    def enter(self, state: S) -> Captured[S]:
        """Copy a state to where its graph works. Its rows are the first ones there."""
        wide = [_widened(tensor.shape, axis) for tensor, axis in state.tensors()]
        key = (state.key, tuple(wide))
        if key not in self._graphs:
            self._graphs[key] = self._make(state, wide)
            if len(self._graphs) > _MAX_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        found = self._graphs[key]
        for (target, axis), (source, _) in zip(found.state.tensors(), state.tensors(), strict=True):
            part = target if axis is None else target.narrow(axis, 0, source.shape[axis])
            part.copy_(source)
            if axis is not None and not target.is_floating_point():
                target.narrow(axis, source.shape[axis], target.shape[axis] - source.shape[axis]).zero_()
        return found

    def _make(self, state: S, wide: list[tuple[int, ...]]) -> Captured[S]:
        zeros = [tensor.new_zeros(shape) for (tensor, _), shape in zip(state.tensors(), wide, strict=True)]
        fixed: S = state.replace(zeros)  # pyright: ignore[reportAssignmentType]

        def work() -> object:
            return self._work(fixed)

        return Captured(fixed, self._capture(work))


def _widened(shape: torch.Size, axis: int | None) -> tuple[int, ...]:
    """A shape with its rows up to a power of two."""
    return tuple(1 << (n - 1).bit_length() if place == axis else n for place, n in enumerate(shape))
