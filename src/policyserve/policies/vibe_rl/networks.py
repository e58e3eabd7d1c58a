"""The networks that act, in NumPy: for an MLP of this size a call of a compiled framework costs more than the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from policyserve.core.arrays import Array
from policyserve.policies.vibe_rl.checkpoint import Layer
from policyserve.transforms import Transform, identity

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
    *hidden, last = [(layer.weight.T, layer.bias) for layer in network.layers]
    activate = _ACTIVATIONS[network.hidden]

    def forward(observations: Array) -> Array:
        with np.errstate(all="ignore"):  # huge observations overflow as they did in training: to inf, not to warnings
            rows = network.input_transform(observations)  # (N, D)
            for weight, bias in hidden:
                rows = rows.dot(weight)  # for small arrays half the time of @
                rows += bias
                activate(rows)
            raw = rows.dot(last[0]) + last[1]  # (N, A)
            if network.is_discrete:
                return raw.argmax(axis=-1).astype(np.int32)
            return network.output_transform(np.tanh(raw, out=raw))

    return forward


def _tanh(rows: Array) -> None:
    np.tanh(rows, out=rows)


def _relu(rows: Array) -> None:
    np.maximum(rows, _ZERO, out=rows)  # NaN stays NaN


_ZERO = np.float32(0)
_ACTIVATIONS: dict[str, Callable[[Array], None]] = {"tanh": _tanh, "relu": _relu}


def limit_blas_threads() -> None:
    """Keep the process's matrix products to one thread: products this small take up to five times longer on two."""
    threadpool_limits(limits=1, user_api="blas")
