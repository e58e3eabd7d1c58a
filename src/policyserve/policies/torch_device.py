"""Where torch computes, by a --device flag."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from policyserve.core.errors import ConfigError


def find_device(name: str) -> Any:
    """The torch.device of a --device flag; `auto`: a GPU where there is one. Raises ConfigError if it is not there."""
    torch = import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"--device {name}: torch finds {count} CUDA devices here; use cpu")
    return device
