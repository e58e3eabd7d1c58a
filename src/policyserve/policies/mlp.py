"""Layers of numbers in NumPy: for a network of this size a call of a compiled framework costs more than the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from policyserve.core.arrays import Array

# Writes what an activation makes of `rows` over them. Of float32; NaN stays NaN.
Activation: TypeAlias = Callable[[Array], object]
# (D,) or (N, D) float32 -> (A,) or (N, A), a fresh array.
Rows: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Layer:
    """y = weight @ x + bias. weight: (out, in) float32. bias: (out,) float32."""

    weight: Array
    bias: Array


def mlp(layers: Sequence[Layer], activate: Activation, is_last_bare: bool = True) -> Rows:
    """Make the function that takes rows through the layers, with an activation after each; is_last_bare: not the last.

    Without layers rows come back as they are. It keeps no state: any thread may call it.
    """
    hidden = [(layer.weight.T, layer.bias) for layer in layers]
    last = hidden.pop() if is_last_bare and hidden else None

    def through(rows: Array) -> Array:
        for weight, bias in hidden:
            rows = rows.dot(weight)  # for small arrays half the time of @
            rows += bias
            activate(rows)
        if last is not None:
            rows = rows.dot(last[0])
            rows += last[1]
        return rows

    return through


def tanh(rows: Array) -> None:
    """The hyperbolic tangent."""
    np.tanh(rows, out=rows)


def relu(rows: Array) -> None:
    """x, and 0 below 0."""
    np.maximum(rows, _ZERO, out=rows)


def elu(rows: Array) -> None:
    """x, and exp(x) − 1 below 0."""
    np.copyto(rows, np.expm1(rows), where=rows < 0)


def leaky_relu(rows: Array) -> None:
    """x, and a hundredth of it below 0."""
    np.multiply(rows, _HUNDREDTH, out=rows, where=rows < 0)


def silu(rows: Array) -> None:
    """X · sigmoid(x)."""
    rows /= np.exp(-rows) + 1


def gelu(rows: Array) -> None:
    """X · Φ(x), exactly, not by the tanh that approximates it."""
    rows *= (_erf(rows * _ROOT_OF_HALF).astype(np.float32) + 1) / 2


_ZERO, _HUNDREDTH, _ROOT_OF_HALF = np.float32(0), np.float32(0.01), math.sqrt(0.5)
_erf: Callable[[Array], Array] = np.frompyfunc(math.erf, 1, 1)

# By torch's names for them.
ACTIVATIONS: Mapping[str, Activation] = {
    "ReLU": relu,
    "Tanh": tanh,
    "ELU": elu,
    "LeakyReLU": leaky_relu,
    "GELU": gelu,
    "SiLU": silu,
}


def limit_blas_threads(threads: int = 1) -> None:
    """Keep the process's matrix products to one thread: products this small take up to five times longer on two."""
    threadpool_limits(limits=threads, user_api="blas")
