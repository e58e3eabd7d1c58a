"""How Diffusion turns noise into actions: the steps of DDPM and DDIM, as the diffusers library takes them.

Steps are spaced by whole divisors of the training's ("leading"), and DDIM adds no noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policyserve.policies.lerobot.config import ScheduleConfig

_MOST_BETA = 0.999
_LEAST_VARIANCE = 1e-20


@dataclass(frozen=True)
class _Step:
    """One step. alpha, previous: the share of the signal, squared, now and after this step."""

    time: int
    alpha: float
    previous: float


class Schedule:
    """The steps of one policy. draws: how many arrays of noise one chunk takes, the first of which is its start."""

    def __init__(self, config: ScheduleConfig) -> None:
        alphas = torch.cumprod(1.0 - _betas(config), 0).tolist()
        stride = config.train_steps // config.inference_steps
        times = [index * stride for index in reversed(range(config.inference_steps))]
        self._steps = [_Step(t, alphas[t], alphas[t - stride] if t >= stride else 1.0) for t in times]
        self._config = config
        self.draws = len([t for t in times if t > 0]) + 1 if config.kind == "DDPM" else 1

    def sample(self, network: Callable[[Tensor, int], Tensor], noise: Tensor) -> Tensor:
        """noise: (draws, B, horizon, action). network: samples (B, horizon, action) and a time -> its prediction."""
        samples, *rest = noise.unbind(0)
        for step in self._steps:
            start, direction = self._predicted(network(samples, step.time), samples, step)
            if self._config.kind == "DDIM":
                samples = math.sqrt(step.previous) * start + math.sqrt(1 - step.previous) * direction
            else:
                samples = _ddpm(step, start, samples, rest.pop(0) if step.time > 0 else None)
        return samples

    def _predicted(self, predicted: Tensor, samples: Tensor, step: _Step) -> tuple[Tensor, Tensor]:
        """The actions without noise, clipped, and the noise in the samples as it was before clipping."""
        signal, noise = math.sqrt(step.alpha), math.sqrt(1 - step.alpha)
        if self._config.predicts == "epsilon":
            start, direction = (samples - noise * predicted) / signal, predicted
        else:
            start, direction = predicted, (samples - signal * predicted) / noise
        clip = self._config.clip
        return (start if clip is None else start.clamp(-clip, clip)), direction


def _ddpm(step: _Step, start: Tensor, samples: Tensor, noise: Tensor | None) -> Tensor:
    alpha = step.alpha / step.previous
    rest, previous_rest = 1 - step.alpha, 1 - step.previous
    mean = math.sqrt(step.previous) * (1 - alpha) / rest * start + math.sqrt(alpha) * previous_rest / rest * samples
    if noise is None:
        return mean
    variance = max(previous_rest / rest * (1 - alpha), _LEAST_VARIANCE)
    return mean + math.sqrt(variance) * noise


def _betas(config: ScheduleConfig) -> Tensor:
    count, first, last = config.train_steps, config.beta_start, config.beta_end
    if config.betas == "linear":
        return torch.linspace(first, last, count)
    if config.betas == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, count) ** 2

    def share(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - share((i + 1) / count) / share(i / count), _MOST_BETA) for i in range(count)])
