"""Which shapes have been computed, and which are computed before somebody asks for them.

What a robot will send is not known while a server loads. So the first real observation is computed again in every
batch size, and then with a shorter and a longer prompt, between answers: each is one short pause instead of one in
front of an answer. So is the first one with rows that the robot is executing (real-time chunking: a session's second
request). Only the first shapes are: clients decide on shapes, and must not keep the model busy with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Protocol

from policyserve.policies.wall_x.inputs import ModelInput

_MOST_SEEN = 1_000  # shapes that are remembered: clients decide on them


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
        self._kinds: set[bool] = set()  # of observations that clients have sent, by whether they are guided
        self._firsts: deque[ModelInput] = deque()  # of each kind, until it is planned what to compute for it
        self._waiting: deque[tuple[ModelInput, int]] = deque()

    def begin(self) -> None:
        """From now on observations are clients'."""
        self._is_serving = True

    def note(self, inputs: Sequence[ModelInput]) -> None:
        """These were computed together."""
        if inputs and len(self._seen) < _MOST_SEEN:
            self._seen.add((self._shapes.shape_of(inputs[0]), len(inputs)))
        for item in inputs if self._is_serving else ():
            if (kind := _is_guided(item)) not in self._kinds:
                self._kinds.add(kind)
                self._firsts.append(item)

    def next(self) -> tuple[ModelInput, int] | None:
        """An input and how many of it are to be computed together; None: nothing is left."""
        while not self._waiting and self._firsts:
            self._waiting.extend(self._planned(self._firsts.popleft()))
        return self._waiting.popleft() if self._waiting else None

    def stop(self) -> None:
        """Compute nothing more."""
        self._is_serving = False
        self._firsts.clear()
        self._waiting.clear()

    def _planned(self, first: ModelInput) -> list[tuple[ModelInput, int]]:
        if self._shapes.shape_of(first) is None:
            return []
        items = [first, *self._shapes.neighbours(first)]
        pairs = [(item, size) for item in items for size in self._sizes]
        return [(item, size) for item, size in pairs if (self._shapes.shape_of(item), size) not in self._seen]


def _is_guided(item: ModelInput) -> bool:
    return item.prefix is not None and item.prefix.known > 0
