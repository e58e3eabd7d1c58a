"""ACT: a transformer that gives a chunk of actions for one observation, all of them normalised.

Its latent variable is zero, as it is after training, and the encoder that training has for it is not loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from policyserve.policies.lerobot.config import ActConfig, PolicyConfig
from policyserve.policies.lerobot.names import ACT_LAYERS
from policyserve.policies.lerobot.resnet import ResNet

_ACTIVATIONS = {"relu": functional.relu, "gelu": functional.gelu}
_LONGEST_WAVE = 10_000
_NOT_ZERO = 1e-6


class Act:
    """vectors (B, n) by `state` and `environment`, images (B, 3, H, W) in config's order -> (B, chunk_size, action)."""

    def __init__(self, weights: Mapping[str, Tensor], config: PolicyConfig, act: ActConfig) -> None:
        self._weights, self._act = weights, act
        self._vectors = [
            (name, f"model.encoder_{prefix}_state_input_proj")
            for name, prefix, feature in (("state", "robot", config.state), ("environment", "env", config.environment))
            if feature is not None
        ]
        is_dilated = act.is_dilated
        self._backbone = (
            ResNet(weights, "model.backbone.", ACT_LAYERS, act.backbone, is_dilated=is_dilated)
            if config.images
            else None
        )
        cell = 16 if is_dilated else 32
        maps = [(-(-one.shape[1] // cell), -(-one.shape[2] // cell)) for one in config.images]
        vectors = weights["model.encoder_1d_feature_pos_embed.weight"]
        positions = [_positions(height, width, act.width).to(vectors) for height, width in maps]
        self._positions = torch.cat([vectors, *positions])  # (T, D)
        self._encoder = [_Layer(weights, f"model.encoder.layers.{i}.", act) for i in range(act.encoder_layers)]
        self._decoder = [_Layer(weights, f"model.decoder.layers.{i}.", act) for i in range(act.decoder_layers)]

    def __call__(self, vectors: Mapping[str, Tensor], images: Sequence[Tensor]) -> Tensor:
        memory = self._tokens(vectors, images)  # (B, T, D)
        for layer in self._encoder:
            memory = layer.encode(memory, self._positions)
        if self._act.pre_norm:
            memory = _norm(self._weights, "model.encoder.norm", memory)
        queries = self._weights["model.decoder_pos_embed.weight"]
        actions = torch.zeros_like(queries).expand(len(memory), -1, -1)  # (B, chunk, D)
        for layer in self._decoder:
            actions = layer.decode(actions, queries, memory, self._positions)
        actions = _norm(self._weights, "model.decoder.norm", actions)
        return _linear(self._weights, "model.action_head", actions)

    def _tokens(self, vectors: Mapping[str, Tensor], images: Sequence[Tensor]) -> Tensor:
        state = vectors["state"]
        latent = self._weights["model.encoder_latent_input_proj.bias"].expand(len(state), -1)  # of zeros
        tokens = [
            latent[:, None],
            *(_linear(self._weights, name, vectors[key])[:, None] for key, name in self._vectors),
        ]
        for image in images:
            assert self._backbone is not None
            maps = self._backbone(image)
            weight, bias = (self._weights[f"model.encoder_img_feat_input_proj.{part}"] for part in ("weight", "bias"))
            tokens.append(functional.conv2d(maps, weight, bias).flatten(2).transpose(1, 2))
        return torch.cat(tokens, 1)


class _Layer:
    """One layer of the encoder, or of the decoder, which attends to the encoder's tokens as well."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str, act: ActConfig) -> None:
        self._weights = {
            name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)
        }
        self._heads, self._pre_norm = act.heads, act.pre_norm
        self._activation = _ACTIVATIONS[act.activation]

    def encode(self, tokens: Tensor, positions: Tensor) -> Tensor:
        tokens = self._step("norm1", tokens, lambda inner: self._attend_self(inner, positions))
        return self._step("norm2", tokens, self._feed)

    def decode(self, tokens: Tensor, positions: Tensor, memory: Tensor, memory_positions: Tensor) -> Tensor:
        keys = memory + memory_positions
        tokens = self._step("norm1", tokens, lambda inner: self._attend_self(inner, positions))
        tokens = self._step(
            "norm2", tokens, lambda inner: self._attend("multihead_attn.", inner + positions, keys, memory)
        )
        return self._step("norm3", tokens, self._feed)

    def _step(self, norm: str, tokens: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        if self._pre_norm:
            return tokens + function(_norm(self._weights, norm, tokens))
        return _norm(self._weights, norm, tokens + function(tokens))

    def _feed(self, tokens: Tensor) -> Tensor:
        return _linear(self._weights, "linear2", self._activation(_linear(self._weights, "linear1", tokens)))

    def _attend_self(self, tokens: Tensor, positions: Tensor) -> Tensor:
        placed = tokens + positions
        return self._attend("self_attn.", placed, placed, tokens)

    def _attend(self, name: str, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        weights = self._weights[f"{name}in_proj_weight"].chunk(3)
        biases = self._weights[f"{name}in_proj_bias"].chunk(3)
        query, key, value = (
            functional.linear(tokens, weight, bias).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for tokens, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
        )  # (B, heads, T, D / heads) each
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return _linear(self._weights, f"{name}out_proj", attended)


def _positions(height: int, width: int, channels: int) -> Tensor:
    """(height · width, channels): sines and cosines of a cell's row in the first half, of its column in the second."""
    half = channels // 2
    waves = _LONGEST_WAVE ** (2 * (torch.arange(half) // 2) / half)

    def along(count: int) -> Tensor:
        steps = torch.arange(1, count + 1, dtype=torch.float32)
        angles = (steps / (count + _NOT_ZERO) * 2 * math.pi)[:, None] / waves
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), -1).flatten(1)  # (count, half)

    rows = along(height)[:, None].expand(-1, width, -1)
    columns = along(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), -1).flatten(0, 1)


def _linear(weights: Mapping[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    return functional.linear(tokens, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Mapping[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    return functional.layer_norm(tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])
