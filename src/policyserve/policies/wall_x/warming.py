"""Which shapes have been computed, and which are computed before somebody asks for them.

What a robot will send is not known while a server loads. So the first real observation is computed again in every
batch size, and then with a shorter and a longer prompt, between answers: each is one short pause instead of one in
front of an answer. Only the first shape is: clients decide on shapes, and must not keep the model busy with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Protocol

from policyserve.policies.wall_x.inputs import ModelInput


class Shapes(Protocol):
    """What the model says of shapes, see WallXModel."""

    def shape_of(self, item: ModelInput) -> Hashable | None: ...
    def neighbours(self, item: ModelInput) -> list[ModelInput]: ...


class Warming:
    """What is still to be computed. sizes: of batches."""

    def __init__(self, shapes: Shapes, sizes: Sequence[int]) -> None:
        self._shapes, self._sizes = shapes, sizes
        self._seen: set[tuple[Hashable, int]] = set()
        self._is_serving = False
        self._first: ModelInput | None = None  # that a client sent
        self._waiting: deque[tuple[ModelInput, int]] | None = None  # once there was a first observation

    def begin(self) -> None:
        """From now on observations are clients'."""
        self._is_serving = True

    def note(self, inputs: Sequence[ModelInput]) -> None:
        """These were computed together."""
        if not inputs or self._waiting is not None:
            return
        self._seen.add((self._shapes.shape_of(inputs[0]), len(inputs)))
        if self._is_serving and self._first is None:
            self._first = inputs[0]

    def next(self) -> tuple[ModelInput, int] | None:
        """An input and how many of it are to be computed together; None: nothing is left."""
        if self._waiting is None:
            if self._first is None:
                return None
            self._waiting = deque(self._planned(self._first))
        return self._waiting.popleft() if self._waiting else None

    def stop(self) -> None:
        """Compute nothing more."""
        self._waiting = deque()

    def _planned(self, first: ModelInput) -> list[tuple[ModelInput, int]]:
        if self._shapes.shape_of(first) is None:
            return []
        items = [first, *self._shapes.neighbours(first)]
        pairs = [(item, size) for item in items for size in self._sizes]
        return [(item, size) for item, size in pairs if (self._shapes.shape_of(item), size) not in self._seen]
