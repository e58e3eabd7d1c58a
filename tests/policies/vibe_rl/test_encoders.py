"""The encoders: their leaves' order, and their numbers against plain NumPy that knows only the leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.policies.frameworks import import_or_skip

jax = import_or_skip("jax")
eqx = import_or_skip("equinox")

from policyserve.policies.vibe_rl.encoders import CNNEncoder, MLPEncoder, ViTEncoder  # noqa: E402

KEY = jax.random.PRNGKey(3)
Leaf = NDArray[Any]


def leaves_of(model: Any) -> list[Any]:
    return [np.asarray(leaf) if eqx.is_array(leaf) else leaf for leaf in jax.tree_util.tree_leaves(model)]


def randomized(model: Any) -> Any:
    """The model with other weights: layer norms and biases start as ones and zeros, which would hide mistakes."""
    leaves, structure = jax.tree_util.tree_flatten(model)
    rng = np.random.default_rng(0)
    changed = [
        jax.numpy.asarray(leaf + rng.normal(size=leaf.shape, scale=0.1), "float32") if eqx.is_array(leaf) else leaf
        for leaf in leaves
    ]
    return jax.tree_util.tree_unflatten(structure, changed)


def convolve(image: Leaf, weight: Leaf, bias: Leaf, stride: int) -> Leaf:
    """(C, H, W) with (O, C, k, k) to (O, h, w), no padding."""
    windows = np.lib.stride_tricks.sliding_window_view(image, weight.shape[-2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight) + bias


def relu(x: Leaf) -> Leaf:
    return np.maximum(x, 0)


def gelu(x: Leaf) -> Leaf:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: Leaf, weight: Leaf, bias: Leaf) -> Leaf:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def attend(x: Leaf, query: Leaf, key: Leaf, value: Leaf, output: Leaf, heads: int) -> Leaf:
    """(P, E) to (P, E)."""
    q, k, v = ((x @ weight.T).reshape(len(x), heads, -1) for weight in (query, key, value))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1) @ output.T


def test_an_mlp_is_tanh_after_every_layer() -> None:
    model = randomized(MLPEncoder(5, (8, 3), key=KEY))
    w0, b0, w1, b1 = leaves_of(model)
    x = np.random.default_rng(1).normal(size=5).astype(np.float32)
    np.testing.assert_allclose(model(x), np.tanh(w1 @ np.tanh(w0 @ x + b0) + b1), atol=1e-6)


def test_a_cnn_is_convolutions_and_a_layer_with_relu() -> None:
    model = randomized(CNNEncoder(20, 24, 3, (4, 5), (4, 3), (2, 1), 6, key=KEY))
    w0, b0, w1, b1, fc_weight, fc_bias = leaves_of(model)
    assert [leaf.shape for leaf in (w0, b0, w1, b1)] == [(4, 3, 4, 4), (4, 1, 1), (5, 4, 3, 3), (5, 1, 1)]
    image = np.random.default_rng(1).random((20, 24, 3)).astype(np.float32)
    x = relu(convolve(relu(convolve(image.transpose(2, 0, 1), w0, b0, 2)), w1, b1, 1))
    np.testing.assert_allclose(model(image), relu(fc_weight @ x.reshape(-1) + fc_bias), atol=1e-5)


def vit_in_numpy(leaves: Iterator[Any], image: Leaf, patch: int, depth: int, heads: int) -> Leaf:
    x = convolve(image.transpose(2, 0, 1), next(leaves), next(leaves), patch)
    x = x.reshape(len(x), -1).T + next(leaves)
    for _ in range(depth):
        normed = layer_norm(x, next(leaves), next(leaves))
        x = x + attend(normed, next(leaves), next(leaves), next(leaves), next(leaves), heads)
        assert (next(leaves), next(leaves)) == (0.0, False)  # dropout's p and inference
        normed = layer_norm(x, next(leaves), next(leaves))
        hidden = gelu(normed @ next(leaves).T + next(leaves))
        x = x + hidden @ next(leaves).T + next(leaves)
    mean = layer_norm(x, next(leaves), next(leaves)).mean(0)
    return next(leaves) @ mean + next(leaves)


def test_a_vit_is_a_pre_norm_transformer_over_patches() -> None:
    model = randomized(ViTEncoder(16, 24, 3, 8, 12, depth=2, num_heads=3, mlp_ratio=2.5, output_dim=7, key=KEY))
    leaves = iter(leaves_of(model))
    image = np.random.default_rng(1).random((16, 24, 3)).astype(np.float32)
    np.testing.assert_allclose(model(image), vit_in_numpy(leaves, image, 8, 2, 3), atol=1e-5)
    assert list(leaves) == []


@pytest.mark.parametrize(("encoder", "size"), [(CNNEncoder, 512), (ViTEncoder, 256)])
def test_the_defaults_take_an_image_of_64_pixels(encoder: Any, size: int) -> None:
    model = eqx.filter_eval_shape(encoder, 64, 64, key=KEY)
    image = jax.ShapeDtypeStruct((64, 64, 3), "float32")
    assert eqx.filter_eval_shape(lambda model, image: model(image), model, image).shape == (size,)


def test_the_package_gives_the_encoders_by_name() -> None:
    from policyserve.policies import vibe_rl

    assert vibe_rl.ViTEncoder is ViTEncoder
    with pytest.raises(AttributeError, match="has no attribute 'RNNEncoder'"):
        vibe_rl.RNNEncoder  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
