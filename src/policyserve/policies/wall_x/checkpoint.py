"""Weights from a directory of safetensors files into a network, each tensor once, straight to its place.

The files are memory-mapped, and a mapping is given up after every quarter gibibyte: pages that were read count as the
process's memory for as long as the mapping lives, and the whole file would double the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.policies.safetensors_files import FLOATS, StoredTensor, list_tensors, opened, size_told
from policyserve.policies.wall_x.memory import is_out_of_memory
from policyserve.policies.wall_x.names import IGNORED_PREFIX, Place, legacy_name, prefixes, stays_float32

log = Log(__name__)

OnStage = Callable[[str], None]

_MAPPED_BYTES = 1 << 28
_NAMED = 6  # tensors that an error or a warning names
_FLOATS: Mapping[str, torch.dtype] = {name: getattr(torch, dtype) for name, dtype in FLOATS.items()}


def read_headers(directory: str | Path) -> dict[str, StoredTensor]:
    """List the tensors of all *.safetensors files of a directory, by their legacy names.

    A prefix that the network's names have (`module.`) is taken off with a warning. Raises ConfigError where there is no
    file, where one is cut short, where two hold the same tensor, or where several prefixes are possible.
    """
    files = sorted(Path(directory).glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{directory}: expected *.safetensors files, got none")
    listed = [tensor for file in files for tensor in list_tensors(file)]
    prefix = _find_prefix(directory, listed)
    found: dict[str, StoredTensor] = {}
    for tensor in listed:
        name = legacy_name(tensor.name.removeprefix(prefix))
        if name.startswith(IGNORED_PREFIX):
            continue
        if name in found:
            raise ConfigError(f"{tensor.file}: {name} is in {found[name].file.name} too; keep one of the two")
        found[name] = tensor
    return found


def _find_prefix(directory: str | Path, listed: Sequence[StoredTensor]) -> str:
    """Return what stands before the embedding's name: a module inside another is saved under its name in that one.

    Nothing where a name without prefix is there too, as that is the network's own.
    """
    found = sorted({prefix for tensor in listed for prefix in prefixes(tensor.name)})
    if not found or "" in found:
        return ""
    if len(found) > 1:
        raise ConfigError(f"{directory}: expected one network, got several: {', '.join(found)}; keep the files of one")
    log.warning("%s: the tensors' names begin with %r, which is taken off", directory, found[0])
    return found[0]


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

    Raises ConfigError that names the tensors which are missing, have another shape or are no floats. Logs one warning
    about those that belong nowhere, and one line if floats are cast to the network's.
    """
    parameters = dict(network.named_parameters())
    shapes = {name: expected_shape(place, parameters[place.parameter]) for name, place in places.items()}
    _check(shapes, stored)
    for name, place in places.items():
        kind = torch.float32 if stays_float32(name) else dtype
        if parameters[place.parameter].is_meta:
            try:
                values = _allocate(parameters[place.parameter].shape, kind, device)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise ConfigError(_told_of_room(parameters, dtype, device)) from error
            parameters[place.parameter] = _put(network, place.parameter, values)
    _tell_casts(stored, places, dtype)
    total = sum(parameter.nbytes for parameter in parameters.values())
    done, told = 0, -1
    for name, values in _read(stored, places):
        place = places[name]
        target = parameters[place.parameter].data
        target = target if place.rows is None else target[place.start : place.start + place.rows]
        target.copy_(values)
        _check_cast(values, target, stored[name], name)
        done += target.nbytes
        percent = 100 * done // total
        if percent > told:
            told = percent
            on_stage(f"weights: {percent} % of {size_told(total)}")


def expected_shape(place: Place, parameter: Tensor) -> tuple[int, ...]:
    """The shape of a checkpoint's tensor that goes to a place."""
    shape = tuple(parameter.shape)
    return shape if place.rows is None else (place.rows, *shape[1:])


def _check(shapes: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor]) -> None:
    faults = [f"{name}: expected {shape}, missing" for name, shape in shapes.items() if name not in stored]
    has_missing = bool(faults)
    for name, shape in shapes.items():
        if name in stored and stored[name].shape != shape:
            faults.append(f"{name}: expected {shape}, got {stored[name].shape}")
        elif name in stored and stored[name].dtype not in _FLOATS:
            faults.append(f"{name}: expected {', '.join(_FLOATS)}, got {stored[name].dtype}")
    directory = next(iter(stored.values())).file.parent if stored else "the checkpoint"
    surplus = sorted(tensor.name for name, tensor in stored.items() if name not in shapes)
    if faults:
        instead = f"; not expected, but there: {_some(surplus, ', ')}" if has_missing and surplus else ""
        told = f"{len(faults)} of {len(shapes)} tensors do not fit config.json: {_some(faults, '; ')}"
        raise ConfigError(f"{directory}: {told}{instead}")
    if surplus:
        log.warning("%s: %d tensors are not used: %s", directory, len(surplus), _some(surplus, ", "))


def _some(texts: Sequence[str], separator: str) -> str:
    """The first few of them, and how many there are besides."""
    more = f"{separator}and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return separator.join(texts[:_NAMED]) + more


def _check_cast(values: Tensor, target: Tensor, stored: StoredTensor, name: str) -> None:
    """Refuse numbers that a narrower dtype made infinite; bfloat16 holds all that float32 does."""
    is_narrower = values.dtype != target.dtype and (values.dtype, target.dtype) != (torch.float32, torch.bfloat16)
    if is_narrower and not torch.isfinite(target).all():
        kind = str(target.dtype).removeprefix("torch.")
        raise ConfigError(f"{stored.file}: {name}: expected finite numbers that {kind} can hold; use a wider dtype")


def _tell_casts(stored: Mapping[str, StoredTensor], places: Mapping[str, Place], dtype: torch.dtype) -> None:
    """Say once that the files have another precision than the network computes in."""
    kinds = {name: _FLOATS[stored[name].dtype] for name in places if not stays_float32(name)}
    others = sorted({str(kind).removeprefix("torch.") for kind in kinds.values() if kind != dtype})
    if others:
        first = stored[next(iter(places))]
        used = str(dtype).removeprefix("torch.")
        log.info("%s: weights of another precision: %s read as %s", first.file.parent, ", ".join(others), used)


def _read(stored: Mapping[str, StoredTensor], places: Mapping[str, Place]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that have a place, file by file, in the order in which they lie there."""
    by_file: dict[Path, dict[str, str]] = {}
    for name in places:
        by_file.setdefault(stored[name].file, {})[stored[name].name] = name
    for file, names in by_file.items():
        with opened(file) as tensors:
            queue = [stored_name for stored_name in tensors.offset_keys() if stored_name in names]
        while queue:
            with opened(file) as tensors:
                mapped = 0
                while queue and mapped < _MAPPED_BYTES:
                    stored_name = queue.pop(0)
                    values = tensors.get_tensor(stored_name)
                    mapped += values.nbytes
                    yield names[stored_name], values
                    del values


def _allocate(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)


def _told_of_room(parameters: Mapping[str, nn.Parameter], dtype: torch.dtype, device: torch.device) -> str:
    """That the weights do not fit, how much they need, and how much was free before."""
    needed = sum(parameter.numel() for parameter in parameters.values()) * dtype.itemsize
    taken = sum(parameter.nbytes for parameter in parameters.values() if not parameter.is_meta)
    free = ""
    if device.type == "cuda":
        with suppress(RuntimeError):  # one that others have filled may not even tell that
            rest, total = torch.cuda.mem_get_info(device)
            free = f", {size_told(rest + taken)} of {size_told(total)} are free"
    cure = "end what else uses it (nvidia-smi names it), take a narrower dtype, or a device with more memory"
    return f"device: the weights do not fit on {device}: they need about {size_told(needed)}{free}; {cure}"


def _put(network: nn.Module, path: str, values: nn.Parameter) -> nn.Parameter:
    owner, _, name = path.rpartition(".")
    setattr(network.get_submodule(owner), name, values)
    return values
