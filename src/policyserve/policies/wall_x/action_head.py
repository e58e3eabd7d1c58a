"""Actions and robot states into the decoder's space, and velocities out of it; all in float32.

    embed(x, t) = w3 silu(w2 [w1 [x, mask], e(t)])

Nothing bends between w1 and w2, so their product takes x at once, and what the mask and the ten times add to it is
the same at every step: `constants` computes it once a batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policyserve.policies.wall_x.architecture import Architecture
from policyserve.policies.wall_x.layers import Linear


class ActionHead(nn.Module):
    """The action head's matrices, under the checkpoint's names."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.hidden, self.action_dim, self._decoder_width = a.action_hidden, a.action_dim, a.hidden
        self.w1 = Linear(2 * a.action_dim, a.action_hidden, bias=False)
        self.w2 = Linear(2 * a.action_hidden, a.action_hidden, bias=False)
        self.w3 = Linear(a.action_hidden, a.action_hidden, bias=False)
        self.action_proj_back = Linear(a.action_hidden, a.action_dim, bias=False)
        self.propri_proj = Linear(2 * a.state_dim, a.state_hidden, bias=False)

    def embed_states(self, states: Tensor, masks: Tensor) -> Tensor:
        """states, masks: (B, P). Returns (B, hidden)."""
        return self._widen(self.propri_proj(torch.cat((states, masks), dim=-1)))

    def velocities(self, hidden: Tensor) -> Tensor:
        """hidden: (B, H, hidden), after the final norm. Returns (B, H, A) float32."""
        return self.action_proj_back(hidden[..., : self.hidden].float())

    def fold(self) -> Tensor:
        """w2 w1 for x alone: (h, A)."""
        return self.w2.weight[:, : self.hidden] @ self.w1.weight[:, : self.action_dim]

    def constants(self, masks: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """What the masks (B, H, A) and the times (T,) add before the silu: (B, H, h) and (T, h)."""
        of_masks = F.linear(masks, self.w1.weight[:, self.action_dim :])
        of_times = time_embedding(times, self.hidden)
        return (
            F.linear(of_masks, self.w2.weight[:, : self.hidden]),
            F.linear(of_times, self.w2.weight[:, self.hidden :]),
        )

    def embed_actions(self, x: Tensor, folded: Tensor, constant: Tensor) -> Tensor:
        """x: (B, H, A); constant: (B, H, h), masks' and time's together. Returns (B, H, hidden)."""
        before = torch.addmm(constant.flatten(0, 1), x.flatten(0, 1), folded.t()).unflatten(0, x.shape[:2])
        return self._widen(self.w3(F.silu(before)))

    def _widen(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self._decoder_width - x.shape[-1])) if x.shape[-1] < self._decoder_width else x


def time_embedding(times: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of times in 0 … 1, not scaled. times: (T,). Returns (T, width) float32."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = times.float()[:, None] * torch.exp(steps * (-math.log(10_000) / (half - 1)))
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
