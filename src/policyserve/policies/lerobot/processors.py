"""The steps before and after a policy, which LeRobot 0.4 and later writes as JSON: read as data, never run.

LeRobot imports what a step names under `class`. Here a step is one of those that are known, or the file is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.policies.fields import Fields, read_object
from policyserve.policies.lerobot.config import MODES

BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"

_RENAME, _BATCH, _DEVICE = "rename_observations_processor", "to_batch_processor", "device_processor"
_NORMALISE, _UNNORMALISE = "normalizer_processor", "unnormalizer_processor"
_STEPS = {BEFORE: (_RENAME, _BATCH, _DEVICE, _NORMALISE), AFTER: (_DEVICE, _UNNORMALISE)}
# What the lerobot package may be handed besides, for the types that it runs.
_PACKAGE_STEPS = ("tokenizer_processor",)
_NEW_LINE = "_new_line_processor"  # smolvla_new_line_processor, and those of other types
_NORMALISER_FIELDS = ("eps", "features", "norm_map", "normalize_observation_keys")


@dataclass(frozen=True)
class Normalising:
    """One normalising step. modes: by kind of feature. kinds: of the features that it knows, by name.

    keys: the only features of an observation that it touches; None: all that it knows.
    """

    file: Path
    statistics: Path | None
    modes: Mapping[str, str]
    kinds: Mapping[str, Any]
    eps: float
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Processors:
    """What stands in both files. renames: a client's name -> the policy's. before, after: None where there is none."""

    renames: Mapping[str, str] = field(default_factory=dict)
    before: Normalising | None = None
    after: Normalising | None = None


def has_processors(folder: Path) -> bool:
    """Whether the policy is of LeRobot 0.4 or later; before, statistics lie among the weights."""
    return (folder / BEFORE).exists() or (folder / AFTER).exists()


def read_processors(folder: Path) -> Processors:
    """Read both files of a policy of ours; raises ConfigError that names the file and the step."""
    renames: dict[str, str] = {}
    before: Normalising | None = None
    after: Normalising | None = None
    for name in (BEFORE, AFTER):
        for step in _steps(folder / name):
            _check_known(step, _STEPS[name])
            if step.kind == _RENAME:
                if before is not None:
                    raise ConfigError(f"{step.where} stands behind normalizer_processor: not supported")
                renames.update(_renames(step))
            elif step.kind == _DEVICE:
                _check_device(step)
            elif step.kind == _NORMALISE:
                before = _only(before, step)
            elif step.kind == _UNNORMALISE:
                after = _only(after, step)
    return Processors(renames, before, after)


def check_for_package(folder: Path) -> None:
    """Raise ConfigError unless both files hold steps alone that import nothing and that are known to be harmless."""
    known = (*_STEPS[BEFORE], *_STEPS[AFTER], *_PACKAGE_STEPS)
    for name in (BEFORE, AFTER):
        for step in _steps(folder / name):
            if not step.kind.endswith(_NEW_LINE):
                _check_known(step, known)
            step.state_file()


@dataclass(frozen=True)
class _Step:
    """One step. where: the file and the step's number from 0, for errors."""

    where: str
    kind: str
    config: Fields
    folder: Path
    values: Mapping[str, Any]

    def state_file(self) -> Path | None:
        """Its tensors' file, which lies in the policy's folder."""
        name = self.values.get("state_file")
        if name is None:
            return None
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ConfigError(f"{self.where}: state_file: expected a name such as x.safetensors, got {name!r:.80}")
        return self.folder / name


def _steps(path: Path) -> list[_Step]:
    if not path.exists():
        raise ConfigError(f"{path} does not exist, and the other of the two processors' files does; fetch it, too")
    steps = read_object(path).get("steps")
    if not isinstance(steps, list):
        raise ConfigError(f"{path}: steps: expected a list, got {type(steps).__name__}")
    return [_step(path, index, values) for index, values in enumerate(steps)]


def _step(path: Path, index: int, values: Any) -> _Step:
    where = f"{path} step {index}"
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object, got {type(values).__name__}")
    if "class" in values:
        wanted = f"{values['class']!s:.80}"
        raise ConfigError(f"{where} wants to import {wanted}: policyserve imports nothing that a file names")
    kind, config = values.get("registry_name"), values.get("config", {})
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise ConfigError(
            f"{where}: expected registry_name and config, got {', '.join(map(str, values))[:80] or 'none'}"
        )
    return _Step(where, kind, Fields(config, f"{where} {kind:.80}"), path.parent, values)


def _check_known(step: _Step, known: tuple[str, ...]) -> None:
    if step.kind not in known:
        raise ConfigError(f"{step.where}, {step.kind:.80}, would change the actions; not supported")


def _check_device(step: _Step) -> None:
    if "float_dtype" in step.config and step.config.get("float_dtype") not in ("float32", "torch.float32"):
        raise step.config.fail("float_dtype", "null or float32; --dtype says what the network computes in")


def _renames(step: _Step) -> dict[str, str]:
    renames = step.config.get("rename_map") if "rename_map" in step.config else {}
    if not isinstance(renames, dict) or not all(isinstance(name, str) for name in renames.values()):
        raise step.config.fail("rename_map", "names of a client's, each with a name of the policy's")
    return renames


def _only(earlier: Normalising | None, step: _Step) -> Normalising:
    if earlier is not None:
        raise ConfigError(f"{step.where}: expected one {step.kind}, got a second one")
    fields = step.config
    unknown = [name for name in fields.names() if name not in _NORMALISER_FIELDS]
    if unknown:
        raise ConfigError(f"{step.where}: {unknown[0]:.80} would change the actions; not supported")
    modes, features = fields.section("norm_map"), fields.section("features")
    return Normalising(
        file=step.folder / (BEFORE if step.kind == _NORMALISE else AFTER),
        statistics=step.state_file(),
        modes={name: modes.choice(name, MODES) for name in modes.names()},
        kinds={name: features.section(name).get("type") for name in features.names()},
        eps=fields.number("eps", 1e-8),
        keys=_keys(fields),
    )


def _keys(fields: Fields) -> tuple[str, ...] | None:
    if "normalize_observation_keys" not in fields:
        return None
    keys = fields.get("normalize_observation_keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise fields.fail("normalize_observation_keys", "a list of names")
    return tuple(keys)
