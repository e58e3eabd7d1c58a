"""A checkpoint's tensors on their device, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from policyserve.core.errors import ConfigError
from policyserve.policies.safetensors_files import opened

_EPS = 1e-5  # of LeRobot's and torch's norms, batch norms and layer norms alike


def load_weights(file: Path, names: Iterable[str], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The named tensors of a file that was checked before; raises ConfigError where dtype does not hold a number."""
    found: dict[str, Tensor] = {}
    with opened(file) as tensors:
        for name in names:
            stored = tensors.get_tensor(name)
            weight = stored.to(dtype)
            if not torch.isfinite(weight.sum(dtype=torch.float64)):
                raise ConfigError(f"{file}: {name}: expected finite numbers that {str(dtype)[6:]} can hold")
            # A copy: what the file maps would be gone with it.
            found[name] = weight.to(device, copy=weight is stored)
    return found


def folded(weights: Mapping[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """A convolution without a bias and the batch norm behind it, as one convolution's weight and bias."""
    kind = weights[f"{convolution}.weight"].dtype
    mean, variance, gain, offset = (
        weights[f"{norm}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
    )
    scale = gain / torch.sqrt(variance + _EPS)
    weight = weights[f"{convolution}.weight"].double() * scale[:, None, None, None]
    return weight.to(kind), (offset - mean * scale).to(kind)
