"""Weights from a directory of safetensors files into a network, each tensor once, straight to its place.

The files are memory-mapped, and a mapping is given up after every quarter gibibyte: pages that were read count as the
process's memory for as long as the mapping lives, and the whole file would double the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from policyserve.core.errors import ConfigError
from policyserve.policies.wall_x.names import IGNORED_PREFIX, Place, legacy_name, stays_float32

log = logging.getLogger(__name__)

OnStage = Callable[[str], None]

_MAPPED_BYTES = 1 << 28
_NAMED = 6  # tensors that an error or a warning names


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not read yet."""

    file: Path
    name: str
    shape: tuple[int, ...]


def read_headers(directory: str | Path) -> dict[str, StoredTensor]:
    """List the tensors of all *.safetensors files of a directory, by their legacy names.

    Raises ConfigError where there is none, where one is cut short, or where two hold the same tensor.
    """
    found: dict[str, StoredTensor] = {}
    files = sorted(Path(directory).glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{directory}: expected *.safetensors files, got none")
    for file in files:
        with _opened(file) as tensors:
            for stored_name in tensors.keys():  # noqa: SIM118  (not a mapping)
                name = legacy_name(stored_name)
                if name.startswith(IGNORED_PREFIX):
                    continue
                if name in found:
                    raise ConfigError(f"{file}: {name} is in {found[name].file.name} too; keep one of the files")
                found[name] = StoredTensor(file, stored_name, tuple(tensors.get_slice(stored_name).get_shape()))
    return found


def fill(
    network: nn.Module,
    places: Mapping[str, Place],
    stored: Mapping[str, StoredTensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    on_stage: OnStage,
) -> None:
    """Give every parameter of a network on the meta device its memory and its values.

    Raises ConfigError that names the tensors which are missing or have another shape. Logs one warning about those
    that belong nowhere.
    """
    parameters = dict(network.named_parameters())
    shapes = {name: expected_shape(place, parameters[place.parameter]) for name, place in places.items()}
    _check(shapes, stored)
    for name, place in places.items():
        kind = torch.float32 if stays_float32(name) else dtype
        if parameters[place.parameter].is_meta:
            values = _allocate(parameters[place.parameter].shape, kind, device)
            parameters[place.parameter] = _put(network, place.parameter, values)
    total = sum(parameter.nbytes for parameter in parameters.values())
    done, told = 0, -1
    for name, values in _read(stored, places):
        place = places[name]
        target = parameters[place.parameter].data
        target = target if place.rows is None else target[place.start : place.start + place.rows]
        target.copy_(values)
        done += target.nbytes
        percent = 100 * done // total
        if percent > told:
            told = percent
            on_stage(f"weights: {percent} % of {total / 1e9:.1f} GB")


def expected_shape(place: Place, parameter: Tensor) -> tuple[int, ...]:
    """The shape of a checkpoint's tensor that goes to a place."""
    shape = tuple(parameter.shape)
    return shape if place.rows is None else (place.rows, *shape[1:])


def _check(shapes: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor]) -> None:
    faults = [f"{name}: expected {shape}, missing" for name, shape in shapes.items() if name not in stored]
    faults += [
        f"{name}: expected {shape}, got {stored[name].shape}"
        for name, shape in shapes.items()
        if name in stored and stored[name].shape != shape
    ]
    directory = next(iter(stored.values())).file.parent if stored else "the checkpoint"
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise ConfigError(
            f"{directory}: {len(faults)} of {len(shapes)} tensors do not fit config.json: "
            f"{'; '.join(faults[:_NAMED])}{more}"
        )
    surplus = sorted(stored.keys() - shapes.keys())
    if surplus:
        more = ", …" if len(surplus) > _NAMED else ""
        log.warning("%s: %d tensors are not used: %s%s", directory, len(surplus), ", ".join(surplus[:_NAMED]), more)


def _read(stored: Mapping[str, StoredTensor], places: Mapping[str, Place]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that have a place, file by file, in the order in which they lie there."""
    by_file: dict[Path, dict[str, str]] = {}
    for name in places:
        by_file.setdefault(stored[name].file, {})[stored[name].name] = name
    for file, names in by_file.items():
        with _opened(file) as tensors:
            queue = [stored_name for stored_name in tensors.offset_keys() if stored_name in names]
        while queue:
            with _opened(file) as tensors:
                mapped = 0
                while queue and mapped < _MAPPED_BYTES:
                    stored_name = queue.pop(0)
                    values = tensors.get_tensor(stored_name)
                    mapped += values.nbytes
                    yield names[stored_name], values
                    del values


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt", device="cpu") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise ConfigError(f"{file}: not a whole safetensors file ({size} bytes: {error}); fetch it again") from error


def _allocate(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    try:
        return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the weights do not fit on {device}; use --model-config.dtype bfloat16 or a larger one"
        ) from error


def _put(network: nn.Module, path: str, values: nn.Parameter) -> nn.Parameter:
    owner, _, name = path.rpartition(".")
    setattr(network.get_submodule(owner), name, values)
    return values
