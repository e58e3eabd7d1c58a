"""Answers with an ONNX model: many observations in one call where the model allows it, else one after the other.

What must stay true: what a session remembers is its chunk's state and nothing else; rows of different sessions never
share a state, in whatever batch they come; and a state, once given, is never written into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import NO_EXTRAS, ActionChunk, PolicyInput
from policyserve.core.spec import PolicySpec
from policyserve.policies.onnx.roles import Roles, Tensor

# Rows by the model's own names, (N, …), and how many they are -> what it gives by name, (N, …) but for states.
Run: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
# A row's or several rows' input, out of what clients sent: (N, …) -> (N, …).
Convert: TypeAlias = Callable[[Array], Array]


class Remembered(NamedTuple):
    """What a session remembers. requests: how many so far. states: by the model's pairs, a batch axis of 1 in each."""

    requests: int
    states: tuple[Array, ...]


class Graph:
    """A model's call. session: onnxruntime's. steps: how many actions of a chunk are given; None: no chunk.

    client: what clients call each input. converts: how an input is made of what they send, where it is not that itself.
    """

    def __init__(
        self,
        session: Any,
        roles: Roles,
        client: Mapping[str, str],
        converts: Mapping[str, Convert],
        steps: int | None,
        extras: Sequence[Tensor] = (),
    ) -> None:
        self.roles = roles
        self._run = session.run
        self._steps = steps
        self._outputs = [roles.action.name, *(pair.out.name for pair in roles.pairs), *(one.name for one in extras)]
        self._extras = [one.name for one in extras]
        self._takes = [(one.name, client[one.name], converts.get(one.name)) for one in roles.inputs]
        self._dtype = action_dtype(roles.action)
        self._counter_key = None if roles.counter is None else client[roles.counter.name]

    def forward(self, rows: Mapping[str, Array]) -> Array:
        """The actions (N, …) of rows (N, …), for a model that remembers nothing."""
        fed = self._fed(rows)
        if self.roles.batching == "stacked":
            return self._actions(self._run(self._outputs, fed)[0])
        count = len(next(iter(fed.values())))
        return np.concatenate([self._actions(self._run(self._outputs, self._one(fed, row))[0]) for row in range(count)])

    def call(self, rows: Mapping[str, Array], inputs: Sequence[PolicyInput]) -> list[ActionChunk]:
        """The chunks of inputs, whose arrays are rows (N, …)."""
        fed = self._fed(rows)
        before = [self._remembered(one) for one in inputs]
        if self.roles.counter is not None:
            fed[self.roles.counter.name] = self._counts(inputs, before)
        if self.roles.batching != "stacked" or len(inputs) == 1:
            return [self._call_one(fed, row, before[row]) for row in range(len(inputs))]
        for place, pair in enumerate(self.roles.pairs):
            fed[pair.into.name] = np.concatenate([one.states[place] for one in before], axis=pair.axis)
        return self._dealt(self._run(self._outputs, fed), before)

    def _fed(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        return {name: rows[key] if convert is None else convert(rows[key]) for name, key, convert in self._takes}

    def _one(self, fed: Mapping[str, Array], row: int) -> dict[str, Array]:
        """One row of what is fed, as the model takes it."""
        if self.roles.batching == "bare":
            return {name: array[row] for name, array in fed.items()}
        return {name: array[row : row + 1] for name, array in fed.items()}

    def _call_one(self, fed: Mapping[str, Array], row: int, before: Remembered) -> ActionChunk:
        one = self._one(fed, row)
        for pair, state in zip(self.roles.pairs, before.states, strict=True):
            one[pair.into.name] = state
        given = self._run(self._outputs, one)
        states = given[1 : 1 + len(self.roles.pairs)]
        extras = given[1 + len(self.roles.pairs) :]
        told = extras if self.roles.batching == "bare" else [array[0] for array in extras]
        return self._chunk(self._actions(given[0])[0], states, before, told)

    def _dealt(self, given: Sequence[Array], before: Sequence[Remembered]) -> list[ActionChunk]:
        """Each row's chunk, of what one call gave for all."""
        actions = self._actions(given[0])
        pairs = self.roles.pairs
        extras = given[1 + len(pairs) :]
        chunks: list[ActionChunk] = []
        for row, one in enumerate(before):
            states = [
                np.take(array, [row], axis=pair.axis)
                for pair, array in zip(pairs, given[1 : 1 + len(pairs)], strict=True)
            ]
            chunks.append(self._chunk(actions[row, ...], states, one, [array[row, ...] for array in extras]))
        return chunks

    def _chunk(
        self, action: Array, states: Sequence[Array], before: Remembered, extras: Sequence[Array]
    ) -> ActionChunk:
        for state in states:
            state.setflags(write=False)
        state = Remembered(before.requests + 1, tuple(states)) if self.roles.remembers else None
        told = dict(zip(self._extras, extras, strict=True)) if self._extras else NO_EXTRAS
        return ActionChunk(action, state, told)

    def _remembered(self, one: PolicyInput) -> Remembered:
        if isinstance(one.state, Remembered):
            return one.state
        return Remembered(0, tuple(np.zeros(pair.row_shape, pair.into.dtype) for pair in self.roles.pairs))

    def _counts(self, inputs: Sequence[PolicyInput], before: Sequence[Remembered]) -> Array:
        """The counter of each row: what the client sent, or how many requests its session has made."""
        counter = self.roles.counter
        assert counter is not None
        shape = tuple(1 if size is None else size for size in self.roles.row_shape(counter))
        sent = [one.observation.get(self._counter_key) for one in inputs]
        counts = [one.requests if value is None else value for one, value in zip(before, sent, strict=True)]
        return np.stack([np.broadcast_to(np.asarray(count, counter.dtype), shape) for count in counts])

    def _actions(self, given: Array) -> Array:
        """What the model gave as actions (N, …) in the dtype and length that are sent."""
        actions = given[None] if self.roles.batching == "bare" else given
        if self._steps is not None:
            actions = actions[:, : self._steps]
        return actions if actions.dtype == self._dtype else actions.astype(self._dtype)


class RememberingPolicy:
    """A policy around a model that remembers something of each session, or says more than its actions."""

    def __init__(self, graph: Graph, spec: PolicySpec) -> None:
        self.spec = spec
        self._graph = graph
        optional = [key for key, leaf in spec.leaves.items() if leaf.optional]
        self._keys = [key for key in spec.leaves if key not in optional]
        self._is_ragged = any(None in graph.roles.row_shape(one) for one in graph.roles.inputs)

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        if len(batch) == 1 or self._is_ragged:
            return [self._graph.call(self._rows([one]), [one])[0] for one in batch]
        return self._graph.call(self._rows(batch), batch)

    def close(self) -> None:
        """Nothing to release: the session goes with its last reference."""

    def _rows(self, batch: Sequence[PolicyInput]) -> dict[str, Array]:
        if len(batch) == 1:
            return {key: batch[0].observation[key][None] for key in self._keys}
        return {key: np.stack([one.observation[key] for one in batch]) for key in self._keys}


def action_dtype(action: Tensor) -> str:
    """What actions are sent as: whole numbers as they are, since they are choices; all else as float32."""
    return action.dtype if np.dtype(action.dtype).kind in "iu" else "float32"
