"""What this machine has for a Wall-X model: packages, a device, memory."""

from __future__ import annotations

import os
from importlib import import_module

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies.wall_x.architecture import Architecture
from policyserve.policies.wall_x.checks import MAX_LENGTH
from policyserve.policies.wall_x.config import ModelConfig

_EXTRA = "wall-x"
_PACKAGES = {
    "torch": "torch",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "PIL": "Pillow",
    "yaml": "PyYAML",
}
_LARGEST_BATCH = {"cuda": 16, "cpu": 8}
_MEMORY_SHARE = 0.8  # of what is free once the weights are there


def check_runtime(config: ModelConfig) -> None:
    """Raise MissingDependency for a package that is not installed, ConfigError for a device that is not there."""
    for module, package in _PACKAGES.items():
        try:
            import_module(module)
        except ImportError as error:
            raise MissingDependency(package, _EXTRA) from error
    if config.device == "cuda" and not import_module("torch").cuda.is_available():
        choose = "choose device cpu (--model-config.device cpu --model-config.dtype float32)"
        raise ConfigError(f"device cuda: torch finds no CUDA device here; {choose}")


def batch_that_fits(config: ModelConfig, architecture: Architecture) -> int:
    """How many observations of the greatest length fit in the memory that is free, up to the device's cap."""
    vision = architecture.vision
    # Numbers that one token needs: its keys and values, one decoder layer's activations, its patches in one block.
    cache = 2 * architecture.layers * architecture.kv_heads * architecture.head_dim
    layer = 8 * architecture.hidden + 3 * max(expert.inner for expert in architecture.experts)
    patches = vision.merge**2 * (8 * vision.width + 3 * vision.inner)
    bytes_each = MAX_LENGTH * (cache + layer + patches) * (4 if config.dtype == "float32" else 2)
    fitting = _free_bytes(config.device) * _MEMORY_SHARE / bytes_each
    return int(max(1, min(_LARGEST_BATCH[config.device], fitting)))


def _free_bytes(device: str) -> float:
    if device == "cuda":
        return import_module("torch").cuda.mem_get_info()[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # this system does not tell
        return float("inf")
