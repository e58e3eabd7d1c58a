"""What this machine has for a Wall-X model: packages, a device, memory."""

from __future__ import annotations

import os
from importlib import import_module

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies.torch_device import why_no_gpu
from policyserve.policies.wall_x.architecture import Architecture
from policyserve.policies.wall_x.checks import MAX_LENGTH
from policyserve.policies.wall_x.config import ModelConfig
from policyserve.policies.wall_x.memory import graph_bytes

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
    check_device(config.device)


def check_device(name: str) -> None:
    """Raise ConfigError for a device that is not there, and say why it is not."""
    why = why_no_gpu(name)
    if why:
        choose = "choose the CPU (--model-config.device cpu --model-config.dtype float32)"
        raise ConfigError(f"device: {name} is not there: {why}; {choose}")


def batch_that_fits(config: ModelConfig, architecture: Architecture, *, cuda_graphs: bool = True) -> int:
    """How many observations of the greatest length fit in the memory that is free, up to the device's cap.

    On a GPU what CUDA graphs may keep is left free for them, and one of them has a cache of its own for the batch.
    """
    vision = architecture.vision
    is_gpu = config.device != "cpu"
    has_graphs = is_gpu and cuda_graphs
    # Numbers that one token needs: its keys and values, one decoder layer's activations, its patches in one block.
    cache = (2 if has_graphs else 1) * 2 * architecture.layers * architecture.kv_heads * architecture.head_dim
    layer = 8 * architecture.hidden + 3 * max(expert.inner for expert in architecture.experts)
    patches = vision.merge**2 * (8 * vision.width + 3 * vision.inner)
    bytes_each = MAX_LENGTH * (cache + layer + patches) * (4 if config.dtype == "float32" else 2)
    free, total = _memory(config.device)
    for_graphs = graph_bytes(total) if has_graphs else 0
    fitting = (free * _MEMORY_SHARE - for_graphs) / bytes_each
    return int(max(1, min(_LARGEST_BATCH["cuda" if is_gpu else "cpu"], fitting)))


def _memory(device: str) -> tuple[float, float]:
    """Bytes that are free, and all of them."""
    if device != "cpu":
        return import_module("torch").cuda.mem_get_info(device)
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):  # this system does not tell
        return float("inf"), float("inf")
