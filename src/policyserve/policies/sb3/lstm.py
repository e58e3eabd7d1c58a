"""The LSTM of RecurrentPPO, for one step of many sessions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.weights import Weights

_MOST_LAYERS = 64


@dataclass(frozen=True, eq=False)
class _Cell:
    """One layer. weights: the input's and the hidden state's, transposed; their columns are the gates i, f, g, o."""

    of_input: Array
    of_hidden: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Lstm:
    """All layers. Its state is a pair of hidden and cell state, each (layers, size) of one session."""

    cells: tuple[_Cell, ...]
    size: int

    def begin(self) -> tuple[Array, Array]:
        """The state of a session that begins."""
        zeros = _frozen(np.zeros((len(self.cells), self.size), np.float32))
        return zeros, zeros

    def step(self, rows: Array, states: list[tuple[Array, Array]]) -> tuple[Array, list[tuple[Array, Array]]]:
        """(N, F) and N states to (N, size) and the N next ones, which nobody can write into."""
        hidden = np.stack([state[0] for state in states], axis=1)  # (layers, N, size)
        memory = np.stack([state[1] for state in states], axis=1)
        for place, cell in enumerate(self.cells):
            gates = rows @ cell.of_input + hidden[place] @ cell.of_hidden + cell.bias
            into, keep, new, out = (gates[:, start : start + self.size] for start in range(0, 4 * self.size, self.size))
            memory[place] = _sigmoid(keep) * memory[place] + _sigmoid(into) * np.tanh(new)
            hidden[place] = rows = _sigmoid(out) * np.tanh(memory[place])
        return rows, [(_frozen(hidden[:, row].copy()), _frozen(memory[:, row].copy())) for row in range(len(states))]


def read_lstm(weights: Weights, prefix: str, inputs: int) -> Lstm:
    """The LSTM whose weights begin so; raises ConfigError."""
    cells: list[_Cell] = []
    size = 0
    while weights.has(f"{prefix}weight_ih_l{len(cells)}"):
        layer = len(cells)
        of_input = weights.take(f"{prefix}weight_ih_l{layer}", None, inputs)
        size = len(of_input) // 4
        of_hidden = weights.take(f"{prefix}weight_hh_l{layer}", 4 * size, size)
        biases = [weights.take(f"{prefix}bias_{which}_l{layer}", 4 * size) for which in ("ih", "hh")]
        cells.append(_Cell(of_input.T, of_hidden.T, biases[0] + biases[1]))
        inputs = size
        if len(cells) > _MOST_LAYERS:
            raise ConfigError(f"{weights.told}: {prefix}: expected {_MOST_LAYERS} layers of an LSTM at most, got more")
    if not cells or any(cell.of_hidden.shape[0] != size for cell in cells):
        raise ConfigError(f"{weights.told}: {prefix}: expected layers of an LSTM of one size, got {len(cells)} layers")
    return Lstm(tuple(cells), size)


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
