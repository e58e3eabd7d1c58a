"""A loaded network of LeRobot's with its normalisation: observations in, chunks of normalised actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from policyserve.core.arrays import Array
from policyserve.core.recipe import OnStage
from policyserve.policies.lerobot.act import Act
from policyserve.policies.lerobot.config import ActConfig, DiffusionConfig, Feature, PolicyConfig
from policyserve.policies.lerobot.diffusion import Diffusion
from policyserve.policies.lerobot.layout import WEIGHTS
from policyserve.policies.lerobot.pictures import as_last
from policyserve.policies.lerobot.policy import Row
from policyserve.policies.lerobot.statistics import Affine, Statistics
from policyserve.policies.lerobot.weights import load_weights
from policyserve.policies.torch_device import find_device

_WHITE = 255.0


class LeRobotModel:
    """A network on its device, asked by one thread at a time.

    draws: how many arrays of noise a chunk takes; 0: it is a function of the observation alone.
    """

    def __init__(
        self,
        network: Act | Diffusion,
        config: PolicyConfig,
        statistics: Statistics,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._network = network
        self._device, self._dtype = device, dtype
        self.draws = network.draws if isinstance(network, Diffusion) else 0
        self._vectors = {
            key: self._input(one, statistics.features.get(one.name))
            for key, one in (("state", config.state), ("environment", config.environment))
            if one is not None
        }
        self._images = [self._input(one, statistics.features.get(one.name)) for one in config.images]

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Row], noise: Array | None) -> Array:
        """Chunks of each row's frames, (B, actions, action) float32, normalised as the network has them.

        rows: each n_obs_steps observations by the policy's own names, the oldest first. noise: (B, draws, horizon,
        action) float32, where the network takes some.
        """
        vectors = {key: self._stacked_vectors(rows, one) for key, one in self._vectors.items()}
        images = [self._stacked_images(rows, one) for one in self._images]
        if isinstance(self._network, Act):
            actions = self._network({key: one[:, 0] for key, one in vectors.items()}, [one[:, 0] for one in images])
        else:
            assert noise is not None
            actions = self._network(vectors, images, torch.from_numpy(noise).to(self._device, self._dtype))
        return actions.float().cpu().numpy()

    def _input(self, feature: Feature, affine: Affine | None) -> _Input:
        if affine is None:
            return _Input(feature, None)
        shift, divisor = (torch.from_numpy(numbers).to(self._device) for numbers in (affine.shift, affine.divisor))
        return _Input(feature, _Scale(shift, divisor, affine.gain, affine.offset))

    def _stacked_vectors(self, rows: Sequence[Row], one: _Input) -> Tensor:
        values = np.stack([[frame[one.feature.name] for frame in row] for row in rows])  # (B, n_obs, n)
        return self._normalised(torch.from_numpy(values).to(self._device), one)

    def _stacked_images(self, rows: Sequence[Row], one: _Input) -> Tensor:
        """(B, n_obs, 3, H, W), with channels as the last axis in memory."""
        pictures = [as_last(frame[one.feature.name], one.feature.shape) for row in rows for frame in row]
        if len({picture.dtype for picture in pictures}) > 1:
            pictures = [_as_float(picture) for picture in pictures]
        stacked = torch.from_numpy(np.stack(pictures)).to(self._device)  # (B · n_obs, H, W, 3)
        stacked = stacked.permute(0, 3, 1, 2)
        if stacked.dtype == torch.uint8:
            stacked = stacked.to(torch.float32).div_(_WHITE)
        return self._normalised(stacked, one).unflatten(0, (len(rows), -1))

    def _normalised(self, values: Tensor, one: _Input) -> Tensor:
        # In float32 whatever the network computes in: bfloat16 does not tell one count of a motor from the next.
        values = values.to(torch.float32)
        if one.scale is None:
            return values.to(self._dtype)
        shift, divisor, gain, offset = one.scale
        # Not folded into one gain: where a feature never changed the divisor is 1e-8, and only shift - shift is 0.
        values = (values - shift).div_(divisor)
        return (values if gain == 1.0 else values.mul_(gain).add_(offset)).to(self._dtype)


class _Scale(NamedTuple):
    """x -> (x - shift) / divisor * gain + offset."""

    shift: Tensor
    divisor: Tensor
    gain: float
    offset: float


@dataclass(frozen=True)
class _Input:
    """A feature, and by what it is normalised; None: it is left as it is."""

    feature: Feature
    scale: _Scale | None


def _as_float(picture: Array) -> Array:
    return picture.astype(np.float32) / (_WHITE if picture.dtype == np.uint8 else 1.0)


def load_model(
    config: PolicyConfig,
    statistics: Statistics,
    names: Sequence[str],
    *,
    device: str,
    dtype: str,
    threads: int | None,
    on_stage: OnStage,
) -> LeRobotModel:
    """Load a network that was checked. names: of its weights. Raises ConfigError for a device that is not there."""
    if threads is not None:
        torch.set_num_threads(threads)
    place = find_device(device), getattr(torch, dtype)
    on_stage("loading the weights")
    with torch.inference_mode():
        weights = load_weights(config.folder / WEIGHTS, names, *place)
        return LeRobotModel(_network(weights, config), config, statistics, *place)


def _network(weights: Mapping[str, Any], config: PolicyConfig) -> Act | Diffusion:
    if isinstance(config.network, ActConfig):
        return Act(weights, config, config.network)
    assert isinstance(config.network, DiffusionConfig)
    return Diffusion(weights, config, config.network)
