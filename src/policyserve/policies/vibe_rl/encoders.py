"""vibe_rl's image and state encoders as Equinox modules, for models that users build themselves.

The order of the fields is the order of the leaves in a state.eqx: keep it. All take one example; images are (H, W, C)
float, 0 … 1. Importing this module needs the extra `jax`; the package imports it only when one of its names is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policyserve.core.errors import MissingDependency

try:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise MissingDependency(error.name or "equinox", "jax") from error


class MLPEncoder(eqx.Module):
    """Linear layers, tanh after every one. (input_dim,) to (hidden_sizes[-1],)."""

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, input_dim: int, hidden_sizes: Sequence[int] = (64, 64), *, key: jax.Array) -> None:
        keys = jax.random.split(key, len(hidden_sizes))
        sizes = zip((input_dim, *hidden_sizes), hidden_sizes, keys, strict=False)
        self.layers = tuple(eqx.nn.Linear(inputs, outputs, key=one) for inputs, outputs, one in sizes)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


class CNNEncoder(eqx.Module):
    """Convolutions without padding, relu after each, then a linear layer with relu. (H, W, C) to (mlp_hidden,)."""

    convs: tuple[eqx.nn.Conv2d, ...]
    fc: eqx.nn.Linear

    def __init__(
        self,
        height: int,
        width: int,
        channels: int = 3,
        channel_sizes: Sequence[int] = (32, 64, 64),
        kernel_sizes: Sequence[int] = (8, 4, 3),
        strides: Sequence[int] = (4, 2, 1),
        mlp_hidden: int = 512,
        *,
        key: jax.Array,
    ) -> None:
        *conv_keys, fc_key = jax.random.split(key, len(channel_sizes) + 1)
        convs: list[eqx.nn.Conv2d] = []
        for outputs, size, stride, one in zip(channel_sizes, kernel_sizes, strides, conv_keys, strict=True):
            convs.append(eqx.nn.Conv2d(channels, outputs, size, stride, key=one))
            channels = outputs
            height, width = (height - size) // stride + 1, (width - size) // stride + 1
        self.convs = tuple(convs)
        self.fc = eqx.nn.Linear(channels * height * width, mlp_hidden, key=fc_key)

    def __call__(self, image: jax.Array) -> jax.Array:
        x = jnp.transpose(image, (2, 0, 1))  # (C, H, W)
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return jax.nn.relu(self.fc(x.reshape(-1)))


class ViTBlock(eqx.Module):
    """Self-attention and an MLP, each after a layer norm and added to its input. (P, E) to (P, E)."""

    norm1: eqx.nn.LayerNorm
    attn: eqx.nn.MultiheadAttention  # its dropout's p and inference are leaves, and so records, too
    norm2: eqx.nn.LayerNorm
    mlp_up: eqx.nn.Linear
    mlp_down: eqx.nn.Linear

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float, *, key: jax.Array) -> None:
        attn_key, up_key, down_key = jax.random.split(key, 3)
        mlp_dim = int(embed_dim * mlp_ratio)
        self.norm1 = eqx.nn.LayerNorm(embed_dim)
        self.attn = eqx.nn.MultiheadAttention(num_heads, embed_dim, key=attn_key)
        self.norm2 = eqx.nn.LayerNorm(embed_dim)
        self.mlp_up = eqx.nn.Linear(embed_dim, mlp_dim, key=up_key)
        self.mlp_down = eqx.nn.Linear(mlp_dim, embed_dim, key=down_key)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        normed = jax.vmap(self.norm1)(tokens)
        tokens = tokens + self.attn(normed, normed, normed, inference=True)
        return tokens + jax.vmap(self._mlp)(tokens)

    def _mlp(self, token: jax.Array) -> Any:
        return self.mlp_down(jax.nn.gelu(self.mlp_up(self.norm2(token)), approximate=True))


class ViTEncoder(eqx.Module):
    """Square patches as tokens, transformer blocks, the tokens' mean, a linear layer. (H, W, C) to (output_dim,)."""

    patch_embed: eqx.nn.Conv2d
    pos_embed: jax.Array
    blocks: tuple[ViTBlock, ...]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(
        self,
        height: int,
        width: int,
        channels: int = 3,
        patch_size: int = 8,
        embed_dim: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        output_dim: int = 256,
        *,
        key: jax.Array,
    ) -> None:
        patch_key, pos_key, head_key, *block_keys = jax.random.split(key, depth + 3)
        patches = (height // patch_size) * (width // patch_size)
        self.patch_embed = eqx.nn.Conv2d(channels, embed_dim, patch_size, patch_size, key=patch_key)
        self.pos_embed = 0.02 * jax.random.normal(pos_key, (patches, embed_dim))
        self.blocks = tuple(ViTBlock(embed_dim, num_heads, mlp_ratio, key=one) for one in block_keys)
        self.norm = eqx.nn.LayerNorm(embed_dim)
        self.head = eqx.nn.Linear(embed_dim, output_dim, key=head_key)

    def __call__(self, image: jax.Array) -> jax.Array:
        x = self.patch_embed(jnp.transpose(image, (2, 0, 1)))  # (E, H / patch, W / patch)
        tokens = x.reshape(x.shape[0], -1).T + self.pos_embed  # (P, E)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(jnp.mean(jax.vmap(self.norm)(tokens), axis=0))
