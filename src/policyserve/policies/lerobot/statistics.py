"""What observations and actions are normalised by: of processors' files, or of buffers among an older policy's weights.

Each feature that is not to be left as it is has its numbers, or the policy is refused: LeRobot would run it raw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, names_told
from policyserve.policies.lerobot.config import ACTION, VISUAL, Feature, PolicyConfig
from policyserve.policies.lerobot.layout import WEIGHTS
from policyserve.policies.lerobot.processors import AFTER, Normalising, Processors
from policyserve.policies.safetensors_files import StoredTensor, read_array, read_header

_EPS = 1e-8
_AS_IT_IS = "IDENTITY"
_NEEDED: Mapping[str, tuple[str, str]] = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
_FLOATS = ("F64", "F32", "F16")
LEGACY = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
_BUFFER = "buffer_"


@dataclass(frozen=True)
class Affine:
    """x -> (x - shift) / divisor · gain + offset, and back by y -> (y - offset) / gain · scale + shift.

    Arrays have the feature's shape, or (channels, 1, 1) of an image. scale is divisor without what keeps it from 0.
    """

    shift: Array
    divisor: Array
    scale: Array
    gain: float
    offset: float


@dataclass(frozen=True)
class Statistics:
    """The features that are normalised, by name, and how the action is brought back; None: as it is.

    lowest, highest: of the recorded actions, where the file has them.
    """

    features: Mapping[str, Affine]
    action: Affine | None
    lowest: Array | None = None
    highest: Array | None = None


def read_statistics(config: PolicyConfig, processors: Processors) -> Statistics:
    """The numbers of a policy with processors' files; raises ConfigError where some are missing, or are none."""
    before, after = processors.before, processors.after
    if before is None and (raw := [one.name for one in config.used if _mode(config.modes, one)]):
        raise ConfigError(f"{config.folder}: expected a normalizer_processor, for {names_told(raw)}, got none")
    if after is None and _mode(config.modes, config.action):
        raise ConfigError(f"{config.folder / AFTER}: expected an unnormalizer_processor, got none")
    inputs = {} if before is None else _normalised(config.used, before)
    action = None if after is None else _normalised([config.action], replace(after, keys=None)).get(config.action.name)
    held = {} if after is None or after.statistics is None else read_header(after.statistics)
    return Statistics(inputs, action, *_extremes(_of(held, config.action), config.action))


def read_legacy_statistics(config: PolicyConfig, stored: Mapping[str, StoredTensor]) -> Statistics:
    """The numbers that LeRobot before 0.4 keeps among the weights; raises ConfigError for those of no feature."""
    buffers = {name: tensor for name, tensor in stored.items() if name.startswith(LEGACY)}
    known = {_buffer_of(one.name) for one in (*config.features, config.action)}
    strange = [name for name in buffers if name.split(".")[1] not in known]
    if strange:
        told = f"{names_told(strange)} are the statistics of no feature of config.json"
        raise ConfigError(f"{config.folder}: {told}: actions would be sent un-normalised")
    where = str(config.folder / WEIGHTS)
    features: dict[str, Affine] = {}
    for one in config.used:
        if mode := _mode(config.modes, one):
            features[one.name] = _affine(one, mode, _buffers(buffers, one, ("normalize_inputs.",)), _EPS, where)
    # A safetensors file holds tensors that share memory once: either place may lack them.
    found = _buffers(buffers, config.action, ("unnormalize_outputs.", "normalize_targets."))
    mode = _mode(config.modes, config.action)
    action = _affine(config.action, mode, found, _EPS, where) if mode else None
    return Statistics(features, action, *_extremes(found, config.action))


def _mode(modes: Mapping[str, str], one: Feature) -> str | None:
    """How a feature is normalised; None: it is left as it is."""
    mode = modes.get(one.kind, _AS_IT_IS)
    return None if mode == _AS_IT_IS else mode


def _normalised(features: Iterable[Feature], step: Normalising) -> dict[str, Affine]:
    touched = [one for one in features if step.keys is None or one.name in step.keys]
    wanted = [(one, mode) for one in touched if (mode := _mode(step.modes, one))]
    if not wanted:
        return {}
    if step.statistics is None:
        raise ConfigError(f"{step.file}: expected a state_file with statistics of {wanted[0][0].name}, got none")
    header = read_header(step.statistics)
    found: dict[str, Affine] = {}
    for one, mode in wanted:
        own = _of(header, one)
        if not own:
            told = f"{step.file} has no statistics for {one.name} (it has {names_told(header)})"
            raise ConfigError(f"{told}: {_consequence(one)}")
        if step.kinds.get(one.name) != one.kind:
            raise ConfigError(f"{step.file}: features: expected {one.name} of type {one.kind}: {_consequence(one)}")
        found[one.name] = _affine(one, mode, own, step.eps, str(step.statistics))
    return found


def _of(header: Mapping[str, StoredTensor], one: Feature) -> dict[str, StoredTensor]:
    """A feature's own statistics, `mean` and so on."""
    head = f"{one.name}."
    return {name.removeprefix(head): tensor for name, tensor in header.items() if name.startswith(head)}


def _consequence(one: Feature) -> str:
    return "actions would be sent un-normalised" if one.kind == ACTION else "it would be left un-normalised"


def _buffer_of(name: str) -> str:
    return _BUFFER + name.replace(".", "_")


def _buffers(buffers: Mapping[str, StoredTensor], one: Feature, places: tuple[str, ...]) -> dict[str, StoredTensor]:
    for place in places:
        head = f"{place}{_buffer_of(one.name)}."
        found = {name.removeprefix(head): tensor for name, tensor in buffers.items() if name.startswith(head)}
        if found:
            return found
    return {}


def _affine(one: Feature, mode: str, own: Mapping[str, StoredTensor], eps: float, where: str) -> Affine:
    missing = [name for name in _NEEDED[mode] if name not in own]
    if missing:
        told = f"expected statistics {' and '.join(_NEEDED[mode])} of {one.name}, for {mode}"
        raise ConfigError(f"{where}: {told}, got {names_told(own)}: {_consequence(one)}")
    first, second = (_numbers(own[name], one) for name in _NEEDED[mode])
    if mode == "MEAN_STD":
        return Affine(first, second + np.float32(eps), second, 1.0, 0.0)
    span = second - first
    span = np.where(span == 0, np.float32(eps), span)
    return Affine(first, span, span, 2.0, -1.0)


def _numbers(stored: StoredTensor, one: Feature) -> Array:
    shape = (one.shape[0], 1, 1) if one.kind == VISUAL else one.shape
    if stored.dtype not in _FLOATS or prod(stored.shape) != prod(shape):
        told = f"{stored.name}: expected {prod(shape)} numbers of {', '.join(_FLOATS)}"
        raise ConfigError(f"{stored.file}: {told}, got {stored.dtype} {stored.shape}")
    with np.errstate(all="ignore"):  # the finite check that follows reports an overflow
        numbers = read_array(stored).astype(np.float32).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{stored.file}: {stored.name}: expected finite numbers, got NaN or Inf")
    return numbers


def _extremes(own: Mapping[str, StoredTensor], action: Feature) -> list[Array | None]:
    return [_numbers(own[end], action) if end in own else None for end in ("min", "max")]
