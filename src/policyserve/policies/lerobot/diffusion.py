"""Diffusion: a U-Net over time that, asked again and again, turns noise into a chunk of normalised actions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from policyserve.policies.lerobot.config import LAST_GROUPS, DiffusionConfig, PolicyConfig
from policyserve.policies.lerobot.names import DIFFUSION_LAYERS, camera_prefixes
from policyserve.policies.lerobot.resnet import ResNet
from policyserve.policies.lerobot.schedule import Schedule

_LONGEST_WAVE = 10_000


class Diffusion:
    """vectors (B, n_obs, n) by `state` and `environment`, images (B, n_obs, 3, H, W) in config's order, and noise.

    noise: (B, draws, horizon, action). Returns the actions from the newest frame on, (B, horizon - n_obs + 1, action).
    """

    def __init__(self, weights: Mapping[str, Tensor], config: PolicyConfig, diffusion: DiffusionConfig) -> None:
        self._schedule = Schedule(diffusion.schedule)
        self._encoders = [_Encoder(weights, prefix, diffusion) for prefix in camera_prefixes(config, diffusion)]
        self._unet = _UNet(weights, diffusion)
        self._first = config.n_obs_steps - 1
        self.draws = self._schedule.draws

    def __call__(self, vectors: Mapping[str, Tensor], images: Sequence[Tensor], noise: Tensor) -> Tensor:
        parts = [vectors["state"], *self._seen(images)]
        if "environment" in vectors:
            parts.append(vectors["environment"])
        condition = torch.cat(parts, -1).flatten(1)  # (B, n_obs · frame)
        samples = self._schedule.sample(
            lambda samples, time: self._unet(samples, time, condition), noise.transpose(0, 1)
        )
        return samples[:, self._first :]

    def _seen(self, images: Sequence[Tensor]) -> list[Tensor]:
        """(B, n_obs, 2 · keypoints) of each camera."""
        if not images:
            return []
        batch, frames = images[0].shape[:2]
        if len(self._encoders) == 1:
            stacked = torch.stack(list(images))  # one call for all cameras
            return list(self._encoders[0](stacked.flatten(0, 2)).unflatten(0, (len(images), batch, frames)))
        return [
            encoder(image.flatten(0, 1)).unflatten(0, (batch, frames))
            for encoder, image in zip(self._encoders, images, strict=True)
        ]


class _Encoder:
    """(N, 3, H, W) -> (N, 2 · keypoints): where in the image a few learned things are."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str, diffusion: DiffusionConfig) -> None:
        self._resize, self._crop = diffusion.resize, diffusion.crop
        self._backbone = ResNet(weights, f"{prefix}backbone.", DIFFUSION_LAYERS, diffusion.backbone, is_dilated=False)
        self._points = weights[f"{prefix}pool.nets.weight"], weights[f"{prefix}pool.nets.bias"]
        self._grid = weights[f"{prefix}pool.pos_grid"]  # (cells, 2)
        self._out = weights[f"{prefix}out.weight"], weights[f"{prefix}out.bias"]

    def __call__(self, images: Tensor) -> Tensor:
        if self._resize is not None:
            images = functional.interpolate(images, self._resize, mode="bilinear", antialias=True)
        if self._crop is not None:
            images = _cropped(images, *self._crop)
        maps = functional.conv2d(self._backbone(images), *self._points)
        shares = maps.flatten(2).softmax(-1)  # (N, keypoints, cells)
        return functional.relu(functional.linear((shares @ self._grid).flatten(1), *self._out))


def _cropped(images: Tensor, height: int, width: int) -> Tensor:
    """The middle, with torchvision's rounding."""
    top, left = round((images.shape[-2] - height) / 2), round((images.shape[-1] - width) / 2)
    return images[..., top : top + height, left : left + width]


class _UNet:
    """Samples (B, horizon, action), a time and a condition (B, c) -> a prediction of the samples' shape."""

    def __init__(self, weights: Mapping[str, Tensor], diffusion: DiffusionConfig) -> None:
        prefix = "diffusion.unet."
        self._weights = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
        self._diffusion = diffusion
        self._levels = len(diffusion.widths)

    def __call__(self, samples: Tensor, time: int, condition: Tensor) -> Tensor:
        step = self._step(time).expand(len(condition), -1)
        condition = functional.mish(torch.cat((step, condition), -1))
        inner = samples.transpose(1, 2)  # (B, action, horizon)
        kept: list[Tensor] = []
        for level in range(self._levels):
            inner = self._pair(f"down_modules.{level}", inner, condition)
            kept.append(inner)
            if level < self._levels - 1:
                inner = functional.conv1d(inner, *self._named(f"down_modules.{level}.2"), stride=2, padding=1)
        inner = self._pair("mid_modules", inner, condition)
        for level in range(self._levels - 1):
            inner = self._pair(f"up_modules.{level}", torch.cat((inner, kept.pop()), 1), condition)
            inner = functional.conv_transpose1d(inner, *self._named(f"up_modules.{level}.2"), stride=2, padding=1)
        inner = self._conv_block("final_conv.0", inner, LAST_GROUPS)
        return functional.conv1d(inner, *self._named("final_conv.1")).transpose(1, 2)

    def _step(self, time: int) -> Tensor:
        """(1, step_width): what the network knows of the time."""
        weight, bias = self._named("diffusion_step_encoder.1")
        half = self._diffusion.step_width // 2
        waves = torch.exp(torch.arange(half, device=weight.device) * -(math.log(_LONGEST_WAVE) / (half - 1)))
        angles = time * waves
        embedded = torch.cat((angles.sin(), angles.cos()))[None].to(weight.dtype)
        inner = functional.mish(functional.linear(embedded, weight, bias))
        return functional.linear(inner, *self._named("diffusion_step_encoder.3"))

    def _pair(self, name: str, inner: Tensor, condition: Tensor) -> Tensor:
        return self._block(f"{name}.1", self._block(f"{name}.0", inner, condition), condition)

    def _block(self, name: str, inner: Tensor, condition: Tensor) -> Tensor:
        """Two convolutions with the condition between them, beside a shortcut."""
        groups = self._diffusion.groups
        outer = self._conv_block(f"{name}.conv1", inner, groups)
        moved = functional.linear(condition, *self._named(f"{name}.cond_encoder.1"))[..., None]
        if self._diffusion.film_scales:
            scale, bias = moved.chunk(2, 1)
            outer = scale * outer + bias
        else:
            outer = outer + moved
        outer = self._conv_block(f"{name}.conv2", outer, groups)
        if f"{name}.residual_conv.weight" in self._weights:
            inner = functional.conv1d(inner, *self._named(f"{name}.residual_conv"))
        return outer + inner

    def _conv_block(self, name: str, inner: Tensor, groups: int) -> Tensor:
        weight, bias = self._named(f"{name}.block.0")
        inner = functional.conv1d(inner, weight, bias, padding=weight.shape[-1] // 2)
        return functional.mish(functional.group_norm(inner, groups, *self._named(f"{name}.block.1")))

    def _named(self, name: str) -> tuple[Tensor, Tensor]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
