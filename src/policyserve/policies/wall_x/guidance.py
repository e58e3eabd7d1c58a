"""Euler steps that agree with rows which are known: real-time chunking, see policies/rtc.py, in Wall-X's sampler.

What differs from row to row of a batch (rows, weights, which of them are frozen) are tensors; what all steps of a run
have in common are numbers of the host, part of its schedule and so of its graph's key. A batch in which nobody sent
anything is a plain one. Time runs from 0, noise, to 1, data, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from policyserve.core.arrays import Array
from policyserve.policies.rtc import Rtc, Target, corrected, guidance_weights, target_of
from policyserve.policies.wall_x.inputs import ModelInput

# The hidden states of the actions (B, H, hidden) and their velocity (B, H, A) float32, at x.
Run: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Guidance:
    """What the steps of a run have in common. strengths: of each step."""

    method: Literal["guided", "identity", "inpaint"]
    strengths: tuple[float, ...]

    @property
    def differentiates(self) -> bool:
        """Whether steps need the network's derivative: their tensors must not be those of inference_mode()."""
        return self.method == "guided"


@dataclass(frozen=True)
class Guide:
    """What the rows of a batch are guided by, (B, H, A) float32 each.

    rows: the known ones. weights: how strongly each number is guided; for `inpaint` 1 where it is put in place, else 0.
    noise: where x started.
    """

    rows: Tensor
    weights: Tensor
    noise: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.rows, self.weights, self.noise]


def guidance_of(items: Sequence[ModelInput], how: Rtc | None, num_steps: int) -> Guidance | None:
    """How a batch is guided; None where no input has rows that are known. Raises ValueError for method `trained`."""
    if how is None or not any(item.prefix is not None and item.prefix.known for item in items):
        return None
    if how.method == "trained":
        raise ValueError("trained: no Wall-X checkpoint was trained with rows that are known")
    return Guidance(how.method, guidance_weights(num_steps, how.max_guidance_weight))


def guide_arrays(items: Sequence[ModelInput], how: Rtc) -> tuple[Array, Array]:
    """The rows and the weights of a batch, (B, H, A) float32 each."""
    horizon, width = items[0].dof_mask.shape
    target = target_of([item.prefix for item in items], how, horizon, width)
    assert target is not None
    dims = np.stack([np.ones(width, np.float32) if item.guided is None else item.guided for item in items])[:, None]
    weights = target.frozen if how.method == "inpaint" else target.weights
    return target.rows, weights * dims


def placed(guide: Guide, x: Tensor, t: float) -> Tensor:
    """The x with the frozen numbers as the flow would have them at time t."""
    known = guide.rows if t == 1 else (1 - t) * guide.noise + t * guide.rows
    return guide.weights * known + (1 - guide.weights) * x


def guided(guidance: Guidance, guide: Guide, x: Tensor, k: int, run: Run) -> tuple[Tensor, Tensor]:
    """What run() gives at x, the velocity of step k bent towards the rows that are known."""
    t, strength = k / len(guidance.strengths), guidance.strengths[k]
    target = Target(guide.rows, guide.weights, None)
    if not guidance.differentiates:
        hidden, velocity = run(x)
        return hidden, corrected(velocity, x, t, target, strength, None)
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        hidden, velocity = run(start)

    def pull(error: Tensor) -> Tensor:
        return torch.autograd.grad(velocity, start, error)[0]

    return hidden.detach(), corrected(velocity.detach(), x, t, target, strength, pull)
