"""The MLPs that act, on NumPy and on JAX."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from policyserve.policies.vibe_rl.checkpoint import Layer
from policyserve.policies.vibe_rl.jax_backend import jax_forward
from policyserve.policies.vibe_rl.networks import ActingNetwork, ForwardRows, numpy_forward
from policyserve.transforms import NormalizeInput, RescaleOutput, identity
from tests.policies.frameworks import import_or_skip

BACKENDS = ["numpy", "jax"]


def forward_of(backend: str, network: ActingNetwork) -> ForwardRows:
    if backend == "jax":
        import_or_skip("jax")
        return jax_forward(network)
    return numpy_forward(network)


def layer(weight: Any, bias: Any) -> Layer:
    return Layer(np.array(weight, np.float32), np.array(bias, np.float32))


def passing_through(size: int, is_discrete: bool = True, hidden: Literal["tanh", "relu"] = "relu") -> ActingNetwork:
    """One layer that changes nothing, so that the raw outputs are the observations."""
    return ActingNetwork([layer(np.eye(size), np.zeros(size))], hidden, is_discrete)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("hidden", ["tanh", "relu"])
def test_a_continuous_network_is_the_tanh_of_an_mlp(backend: str, hidden: Literal["tanh", "relu"]) -> None:
    rng = np.random.default_rng(0)
    layers = [layer(rng.normal(size=shape), rng.normal(size=shape[0])) for shape in ((8, 3), (5, 8), (2, 5))]
    rows = rng.normal(size=(10, 3)).astype(np.float32)
    expected = rows.astype(np.float64)
    for one in layers[:-1]:
        expected = expected @ one.weight.T + one.bias
        expected = np.tanh(expected) if hidden == "tanh" else np.maximum(expected, 0)
    expected = np.tanh(expected @ layers[-1].weight.T + layers[-1].bias)
    actions = forward_of(backend, ActingNetwork(layers, hidden, is_discrete=False))(rows)
    assert isinstance(actions, np.ndarray)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, expected, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_discrete_network_answers_the_first_largest_and_nan_is_largest(backend: str) -> None:
    nan, inf = np.nan, np.inf
    # An infinite input meets the zeros of the unit matrix as NaN: the order of what is finite comes first.
    rows = np.array([[1, 3, 2], [3, 1, 3], [0, 0, 0], [nan, nan, nan]], np.float32)
    actions = forward_of(backend, passing_through(3))(rows)
    assert actions.dtype == np.int32
    np.testing.assert_array_equal(actions, [1, 0, 0, 0])
    one_nan = ActingNetwork([layer(np.zeros((3, 1)), [1, nan, inf])], "relu", is_discrete=True)
    np.testing.assert_array_equal(forward_of(backend, one_nan)(np.zeros((2, 1), np.float32)), [1, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_huge_observations_neither_warn_nor_raise(backend: str) -> None:
    rows = np.array([[3e38, 3e38], [np.inf, -np.inf], [np.nan, 0]], np.float32)
    network = ActingNetwork([layer(np.full((2, 2), 3e38), [0, 0]), layer(np.eye(2), [0, 0])], "relu", False)
    forward = forward_of(backend, network)
    assert forward(rows).shape == (3, 2)
    assert [forward(row[None]).shape for row in rows] == [(1, 2)] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_transforms_run_before_and_after(backend: str) -> None:
    network = passing_through(2, is_discrete=False)
    network = ActingNetwork(network.layers, "relu", False, NormalizeInput(1.0, 2.0), RescaleOutput(-4.0, 4.0))
    rows = np.array([[1, 3]], np.float32)
    np.testing.assert_allclose(forward_of(backend, network)(rows), [[0, 4 * np.tanh(1)]], rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_discrete", [True, False])
@pytest.mark.parametrize("mean", [0.5, [0.5, -1.0, 2.0]], ids=["one mean", "a mean per feature"])
def test_a_row_alone_gets_what_it_gets_among_others(backend: str, is_discrete: bool, mean: Any) -> None:
    rng = np.random.default_rng(1)
    layers = [layer(rng.normal(size=shape), rng.normal(size=shape[0])) for shape in ((8, 3), (2, 8))]
    given, taken = NormalizeInput(np.asarray(mean), np.full(np.shape(mean), 2.0)), RescaleOutput(-4.0, 4.0)
    network = ActingNetwork(layers, "tanh", is_discrete, given, identity if is_discrete else taken)
    forward = forward_of(backend, network)
    rows = rng.normal(size=(10, 3)).astype(np.float32)
    together, alone = forward(rows), np.concatenate([forward(row[None]) for row in rows])
    assert (alone.dtype, alone.shape) == (together.dtype, together.shape)
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_call_answers_a_fresh_array_and_leaves_the_observations_alone(backend: str) -> None:
    forward = forward_of(backend, ActingNetwork(passing_through(2).layers, "tanh", False, identity))
    rows = np.array([[0.5, -0.5]], np.float32)
    first = forward(rows)
    kept = first.copy()
    second = forward(2 * rows)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(rows, [[0.5, -0.5]])
