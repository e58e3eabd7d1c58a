"""Where torch computes, by a --device flag, and why that cannot be."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import Any

from policyserve.core.errors import ConfigError


def find_device(name: str) -> Any:
    """The torch.device of a --device flag; `auto`: a GPU where there is one. Raises ConfigError if it is not there."""
    torch = import_module("torch")
    if name == "auto":
        return torch.device("cpu" if why_no_gpu("cuda") else "cuda")
    why = why_no_gpu(name)
    if why:
        raise ConfigError(f"--device {name}: {why}; use cpu")
    return torch.device(name)


def why_no_gpu(name: str) -> str:
    """Why this device of torch's cannot be used, in a clause; empty where it can, and for the CPU."""
    torch = import_module("torch")
    device = torch.device(name)
    if device.type != "cuda":
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells what is wrong there, in several lines
        if not torch.cuda.is_available():
            return _why_no_cuda(torch)
        count = torch.cuda.device_count()
    if (device.index or 0) < count:
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    by = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
    last = "" if count == 1 else f" to cuda:{count - 1}"
    return f"torch finds {count} CUDA devices here, cuda:0{last}{by}"


def _why_no_cuda(torch: Any) -> str:
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
    except Exception as error:  # the driver is too old, is not there, or shows no device
        told = str(error).splitlines() or [type(error).__name__]
        first = told[0].split(". ")[0].rstrip(".")  # the rest are addresses of downloads
        return f"torch finds no CUDA device here: {first}"
    return "torch finds no CUDA device here"
