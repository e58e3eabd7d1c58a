"""A checkpoint to measure with: one that is there already, or one of random weights that is written first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.policies.wall_x.model import WallXModel, load_model

from .random_checkpoint import SIZES, random_config, write_random_checkpoint
from .timing import peak_bytes

_UNFINISHED = "unfinished"  # a file that is there while a checkpoint is being written


def load(size: str | None, device: str, dtype: Any, folder: Path) -> tuple[WallXModel, dict[str, float]]:
    """Write a checkpoint of this size unless the folder holds one, load it, and say what that took.

    size: of SIZES; None: whatever is there, else mid. Raises ConfigError for a folder of something else.
    """
    started = time.perf_counter()
    is_there = (folder / "config.json").is_file() and not (folder / _UNFINISHED).exists()
    if not is_there:
        _write(size or "mid", folder)
    written = time.perf_counter()
    model = load_model(folder, device=device, dtype=dtype)
    if is_there and size is not None:
        _check_size(model, size, folder)
    parameters = list(model.network.parameters())
    return model, {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "file_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "weight_bytes": sum(parameter.nbytes for parameter in parameters),
        "write_s": written - started,
        "load_s": time.perf_counter() - written,
        "loaded_peak_bytes": peak_bytes(),
    }


def _write(size: str, folder: Path) -> None:
    unfinished = folder / _UNFINISHED
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--checkpoint: {folder} is a file; name a folder")
    if folder.exists() and any(folder.iterdir()) and not unfinished.exists():
        raise ConfigError(f"--checkpoint: {folder} holds other things and no checkpoint; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    write_random_checkpoint(folder, random_config(SIZES[size]), SIZES[size].vocabulary)
    unfinished.unlink()


def _check_size(model: WallXModel, size: str, folder: Path) -> None:
    a, wanted = model.architecture, SIZES[size]
    if (a.hidden, a.layers) != (wanted.hidden, wanted.layers):
        raise ConfigError(
            f"--checkpoint: {folder} has {a.layers} layers of {a.hidden}, --size {size} has {wanted.layers} of "
            f"{wanted.hidden}; leave out --size, or name another folder"
        )
