"""Answers with a torch program: many observations in one call, or one by one where it remembers something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import PolicySpec

# Rows of an input, out of what clients sent: (N, …) -> (N, …).
Convert: TypeAlias = Callable[[Array], Array]


class Program(Protocol):
    """What the policies ask: see programs.Program."""

    initial: tuple[Any, ...]

    def __call__(self, rows: Sequence[Array]) -> Array: ...

    def step(self, row: Sequence[Array], state: tuple[Any, ...]) -> tuple[Array, tuple[Any, ...]]: ...


class Remembered(NamedTuple):
    """What a session remembers: the program's buffers after its last request, which are never written into."""

    buffers: tuple[Any, ...]


class Asking:
    """A program with what stands around it. keys: what clients call each input, in the program's order.

    converts: by such a key, how an input is made of what they send. steps: how many actions of a chunk are given.
    """

    def __init__(
        self, program: Program, keys: Sequence[str], converts: Mapping[str, Convert], steps: int | None
    ) -> None:
        self._program, self._keys, self._converts, self._steps = program, keys, converts, steps

    def forward(self, rows: Mapping[str, Array]) -> Array:
        """The actions (N, …) of rows (N, …)."""
        actions = self._program([self._input(key, rows[key]) for key in self._keys])
        return actions if self._steps is None else actions[:, : self._steps]

    def step(self, one: PolicyInput) -> ActionChunk:
        """The chunk of one observation, and what its session remembers then."""
        before = one.state.buffers if isinstance(one.state, Remembered) else self._program.initial
        actions, after = self._program.step(self.row(one.observation), before)
        return ActionChunk(actions if self._steps is None else actions[: self._steps], Remembered(after))

    def row(self, observation: Mapping[str, Any]) -> list[Array]:
        """One observation as the program takes it, in its order and without a batch axis."""
        return [self._input(key, observation[key][None])[0, ...] for key in self._keys]

    def _input(self, key: str, rows: Array) -> Array:
        convert = self._converts.get(key)
        return np.asarray(rows) if convert is None else convert(rows)


class RememberingPolicy:
    """A policy around a program that changes its buffers: its rows run one by one, each with its session's own."""

    def __init__(self, asking: Asking, spec: PolicySpec) -> None:
        self.spec = spec
        self._asking = asking

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [self._asking.step(one) for one in batch]

    def close(self) -> None:
        """Nothing to release: the program goes with its last reference."""
