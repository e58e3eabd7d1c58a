"""The layers compute what torch's do."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.policies.mlp import ACTIVATIONS, Layer, mlp
from tests.policies.frameworks import import_or_skip

RANDOM = np.random.default_rng(4)


def layer(inputs: int, outputs: int) -> Layer:
    weight = RANDOM.standard_normal((outputs, inputs)).astype(np.float32)
    return Layer(weight, RANDOM.standard_normal(outputs).astype(np.float32))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_torchs(name: str) -> None:
    torch = import_or_skip("torch")
    values = np.array([-50, -3, -1, -0.1, 0, 1e-7, 0.5, 2, 50, np.nan], np.float32)
    wanted = getattr(torch.nn, name)()(torch.tensor(values)).numpy()
    ACTIVATIONS[name](values)
    np.testing.assert_allclose(values, wanted, atol=1e-6)


@pytest.mark.parametrize("is_last_bare", [True, False])
def test_rows_go_through_all_layers_and_a_vector_as_a_row(is_last_bare: bool) -> None:
    layers = [layer(3, 5), layer(5, 2)]
    rows = RANDOM.standard_normal((4, 3)).astype(np.float32)
    wanted = np.tanh(rows @ layers[0].weight.T + layers[0].bias) @ layers[1].weight.T + layers[1].bias
    wanted = wanted if is_last_bare else np.tanh(wanted)
    through = mlp(layers, ACTIVATIONS["Tanh"], is_last_bare)
    given = rows.copy()
    np.testing.assert_allclose(through(given), wanted, atol=1e-6)
    np.testing.assert_allclose(through(given[1]), wanted[1], atol=1e-6)
    np.testing.assert_array_equal(given, rows)


def test_without_layers_rows_come_back() -> None:
    rows = np.ones((2, 3), np.float32)
    assert mlp([], ACTIVATIONS["ReLU"])(rows) is rows
