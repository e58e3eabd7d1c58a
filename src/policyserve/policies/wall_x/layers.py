"""The pieces that both towers are made of: matrices without gradients, RMS norms, gated feed-forward layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policyserve.policies.wall_x.fused import add_rms_norm, rms_norm, silu_mul, silu_mul_both


def weight(*shape: int) -> nn.Parameter:
    """A parameter's place: shape alone, until the checkpoint's loader fills it."""
    return nn.Parameter(torch.empty(*shape, device="meta"), requires_grad=False)


class Linear(nn.Module):
    """x Wᵀ + b. Several of a checkpoint's matrices may be stacked in one: fewer, larger products."""

    bias: nn.Parameter | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = weight(outputs, inputs)
        self.bias = weight(outputs) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class RmsNorm(nn.Module):
    """x / rms(x) · weight, all in float32, then back to x's dtype.

    A norm that is narrower than x reads the first channels, and the others become 0.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = weight(width)
        self._width, self._epsilon = width, epsilon

    def forward(self, x: Tensor) -> Tensor:
        missing = x.shape[-1] - self._width
        y = rms_norm(x[..., : self._width], self.weight, self._epsilon)
        return F.pad(y, (0, missing)) if missing else y

    def after_sum(self, x: Tensor, added: Tensor, after: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Give x + added and its norm; a norm that is as wide as x computes both at once. after: see add_rms_norm."""
        if x.shape[-1] != self._width:
            total = x + (added if after is None else torch.cat((added, after), dim=1))
            return total, self(total)
        return add_rms_norm(x, added, self.weight, self._epsilon, after=after)


class SwiGlu(nn.Module):
    """down(silu(gate x) · up x), gate and up stacked in one matrix. Narrower than x: see RmsNorm."""

    def __init__(self, width: int, inner: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)
        self._width = width

    def forward(self, x: Tensor) -> Tensor:
        return self._after_gate(silu_mul(self._before_gate(x)), x.shape[-1])

    def beside(self, x: Tensor, other: SwiGlu, other_x: Tensor) -> tuple[Tensor, Tensor]:
        """Give what this makes of x and the other of other_x, the gates of both at once."""
        one, two = silu_mul_both(self._before_gate(x), other._before_gate(other_x))
        return self._after_gate(one, x.shape[-1]), other._after_gate(two, other_x.shape[-1])

    def _before_gate(self, x: Tensor) -> Tensor:
        return self.gate_up(x[..., : self._width])

    def _after_gate(self, gated: Tensor, width: int) -> Tensor:
        y = self.down(gated)
        return F.pad(y, (0, width - self._width)) if width > self._width else y
