"""What happens to an observation before the model and to an action after it. Pure, and traceable by jax.jit."""

from __future__ import annotations

from policyserve.transforms.compose import ComposeTransforms, Transform, identity
from policyserve.transforms.images import ResizeImageInput
from policyserve.transforms.normalize import (
    NormalizeInput,
    NormStats,
    RescaleOutput,
    UnnormalizeOutput,
    read_norm_stats,
)

__all__ = [
    "ComposeTransforms",
    "NormStats",
    "NormalizeInput",
    "RescaleOutput",
    "ResizeImageInput",
    "Transform",
    "UnnormalizeOutput",
    "identity",
    "read_norm_stats",
]
