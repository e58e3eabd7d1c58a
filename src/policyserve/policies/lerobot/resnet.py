"""The image encoder of both networks: a ResNet without its last two layers, its batch norms folded into its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from policyserve.policies.lerobot.names import STAGES
from policyserve.policies.lerobot.weights import folded

_CHANNELS_PER_GROUP = 16


@dataclass(frozen=True)
class _Convolution:
    """A convolution and its norm. group_norm: weight and bias; None: a batch norm, which is in the weights."""

    weight: Tensor
    bias: Tensor | None
    group_norm: tuple[Tensor, Tensor] | None
    stride: int = 1
    dilation: int = 1

    def __call__(self, maps: Tensor) -> Tensor:
        padding = self.weight.shape[-1] // 2 * self.dilation
        maps = functional.conv2d(maps, self.weight, self.bias, self.stride, padding, self.dilation)
        if self.group_norm is None:
            return maps
        return functional.group_norm(maps, len(self.weight) // _CHANNELS_PER_GROUP, *self.group_norm)


@dataclass(frozen=True)
class _Block:
    convolutions: Sequence[_Convolution]
    shortcut: _Convolution | None

    def __call__(self, maps: Tensor) -> Tensor:
        inner = maps
        for convolution in self.convolutions[:-1]:
            inner = functional.relu_(convolution(inner))
        inner = self.convolutions[-1](inner)
        return functional.relu_(inner.add_(maps if self.shortcut is None else self.shortcut(maps)))


class ResNet:
    """(B, 3, H, W) -> (B, channels, ⌈H/32⌉, ⌈W/32⌉), or ⌈/16⌉ if the last stage is dilated instead of strided.

    prefix, layers: how the weights are named, see names.py. Weights that have running means are those of batch norms.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], prefix: str, layers: Sequence[str], backbone: str, *, is_dilated: bool
    ) -> None:
        self._weights, self._prefix = weights, prefix
        stem, norm, *stages = layers
        self._stem = self._convolution(stem, norm, stride=2)
        self._blocks: list[_Block] = []
        for stage, (name, count) in enumerate(zip(stages, STAGES[backbone][0], strict=True)):
            is_last_dilated = is_dilated and stage == len(stages) - 1
            stride = 1 if stage == 0 or is_last_dilated else 2
            for index in range(count):
                # The first block of a dilated stage is as the stage before.
                dilation = 2 if is_last_dilated and index > 0 else 1
                self._blocks.append(self._block(f"{name}.{index}.", stride if index == 0 else 1, dilation))
        del self._weights

    def __call__(self, images: Tensor) -> Tensor:
        maps = functional.relu_(self._stem(images.contiguous(memory_format=torch.channels_last)))
        maps = functional.max_pool2d(maps, 3, 2, 1)
        for block in self._blocks:
            maps = block(maps)
        return maps

    def _block(self, name: str, stride: int, dilation: int) -> _Block:
        count = 3 if f"{self._prefix}{name}conv3.weight" in self._weights else 2
        strided = count - 2  # torchvision strides the 3 x 3 convolution of a bottleneck, the first of others
        convolutions = [
            self._convolution(
                f"{name}conv{index + 1}",
                f"{name}bn{index + 1}",
                stride=stride if index == strided else 1,
                dilation=dilation if index == strided else 1,
            )
            for index in range(count)
        ]
        if f"{self._prefix}{name}downsample.0.weight" not in self._weights:
            return _Block(convolutions, None)
        return _Block(convolutions, self._convolution(f"{name}downsample.0", f"{name}downsample.1", stride=stride))

    def _convolution(self, name: str, norm: str, *, stride: int = 1, dilation: int = 1) -> _Convolution:
        name, norm = self._prefix + name, self._prefix + norm
        if f"{norm}.running_mean" in self._weights:
            weight, bias = folded(self._weights, name, norm)
            return _Convolution(_last(weight), bias, None, stride, dilation)
        group_norm = (self._weights[f"{norm}.weight"], self._weights[f"{norm}.bias"])
        return _Convolution(_last(self._weights[f"{name}.weight"]), None, group_norm, stride, dilation)


def _last(weight: Tensor) -> Tensor:
    """With channels as the last axis in memory, which convolutions are fastest with."""
    return weight.contiguous(memory_format=torch.channels_last)
