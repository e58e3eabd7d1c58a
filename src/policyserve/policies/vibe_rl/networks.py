"""The networks that act, in NumPy: for an MLP of this size a call of a compiled framework costs more than the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.policies.mlp import Layer, mlp, relu, tanh
from policyserve.transforms import NormalizeInput, Transform, identity

# (N, D) float32 -> (N,) int32 or (N, A) float32.
ForwardRows: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class ActingNetwork:
    """An MLP and what it means: argmax of the last layer if discrete, else its tanh through output_transform.

    hidden: the activation after each layer but the last. Of equal outputs the first wins, and NaN wins over numbers.
    """

    layers: Sequence[Layer]
    hidden: Literal["tanh", "relu"]
    is_discrete: bool
    input_transform: Transform = identity
    output_transform: Transform = identity


def numpy_forward(network: ActingNetwork) -> ForwardRows:
    """Make the function of stacked observations. It keeps no state: any thread may call it."""
    prepare, through = _in_place(network.input_transform), mlp(network.layers, _ACTIVATIONS[network.hidden])
    outputs = len(network.layers[-1].bias)

    def forward(observations: Array) -> Array:
        # A vector takes half the time of a matrix of one row.
        rows = observations[0] if len(observations) == 1 else observations  # (D,) or (N, D)
        with np.errstate(all="ignore"):  # huge observations overflow as they did in training: to inf, not to warnings
            raw = through(prepare(rows))  # (A,) or (N, A)
            if network.is_discrete:
                return np.array(raw.argmax(-1), np.int32, ndmin=1)
            return network.output_transform(np.tanh(raw, out=raw).reshape(-1, outputs))

    return forward


def _in_place(transform: Transform) -> Transform:
    """The same function, quicker where it is the z-scores of what is an array for sure."""
    if not isinstance(transform, NormalizeInput) or transform.key is not None:
        return transform
    mean, scale = transform.mean_and_scale

    def normalize(rows: Array) -> Array:
        rows = rows - mean
        rows /= scale
        return rows

    return normalize


_ACTIVATIONS = {"tanh": tanh, "relu": relu}
