"""The config.json of the training run that a checkpoint belongs to: how the weights were trained.

Where it is found it goes before a preset's values, and what the user gives (flags, or a TrainConfig) goes before it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.policies.vibe_rl.checkpoint import follow_best, is_step_name
from policyserve.policies.vibe_rl.config import TrainConfig, load_json, parse_train_config, tell_unknown
from policyserve.policies.vibe_rl.environments import (
    ENVIRONMENTS,
    FILE,
    Environment,
    find_environment,
    read_environment,
)
from policyserve.policies.vibe_rl.presets import PRESETS, algorithm_of, find_preset, name_of

log = Log(__name__)

NAME = "config.json"
_SERVED = ("hidden_sizes", "action_low", "action_high")  # fields of an algorithm that change what is answered


@dataclass(frozen=True)
class RunConfig:
    """A run's config.json. unknown: keys under `runner` that this version does not know."""

    path: Path
    config: TrainConfig
    unknown: tuple[str, ...] = ()


def find_run_config(checkpoint_dir: str | Path) -> RunConfig | None:
    """Read config.json in checkpoint_dir or in its parent; None if no training run's is there.

    The parent is the one that is spelled, as for norm_stats.json, and then the one behind a link. Around the directory
    of one step (`step_<N>`, `best`) the run's is looked for too. Raises ConfigError for a file that is malformed.
    """
    for place in _places(Path(checkpoint_dir), NAME):
        values = load_json(place)
        if isinstance(values, Mapping) and isinstance(values.get("algo"), Mapping):
            return RunConfig(place, *parse_train_config(values, str(place)))
        log.info("%s is not used: it has no algo, so it is no training run's", place)
    return None


def starting_config(preset: str, checkpoint_dir: str | Path) -> TrainConfig:
    """Say what a preset's flags start from: the config of the checkpoint's run, or the preset's where none is found.

    Raises ConfigError if the run is another preset's, of another algorithm, or malformed.
    """
    config, run = find_preset(preset).config, find_run_config(checkpoint_dir)
    if run is None:
        return config
    alike = sorted(name for name, other in PRESETS.items() if type(other.config.algo) is type(run.config.algo))
    name = name_of(run.config)
    if preset not in alike or (name in alike and name != preset):
        right = name if name in alike else " or ".join(alike)
        raise ConfigError(
            f"{run.path}: expected a run of {preset} ({_title(config)}), got {_title(run.config)}: "
            f"serve it with {right}, or put the checkpoint's own {NAME} into {checkpoint_dir}"
        )
    return run.config


def choose_config(config: TrainConfig | None, checkpoint_dir: str | Path) -> TrainConfig:
    """Return the config given, or the run's where none is given; one line of the log says where the two differ.

    Raises ConfigError if there is neither.
    """
    run = find_run_config(checkpoint_dir)
    if run is not None:
        chosen = config or run.config
        tell_unknown(str(run.path), run.unknown)
        _tell_differences(run, chosen)
        return chosen
    if config is None:
        places = f"{checkpoint_dir} or its parent"
        raise ConfigError(f"config: expected a TrainConfig, or a training run's {NAME} in {places}, got neither")
    return config


def environment_of(config: TrainConfig, checkpoint_dir: str | Path) -> Environment:
    """The environment that a policy was trained in: one that is known here, or whose sizes the run's own file tells.

    Raises ConfigError if it is unknown and no environment.json is where config.json would be, or is malformed.
    """
    if config.env_id not in ENVIRONMENTS and (path := next(_places(Path(checkpoint_dir), FILE), None)):
        return read_environment(path, config.env_id)
    return find_environment(config.env_id)


def _places(folder: Path, name: str) -> Iterator[Path]:
    """The files of this name that may be a run's, the first that goes first."""
    inside = follow_best(folder)
    if not inside.is_dir():
        return
    real = inside.resolve()
    above = [real.parent.parent] if is_step_name(real.name) else []
    for place in (inside, folder.parent, real.parent, *above):
        if (place / name).is_file():
            yield place / name


def _tell_differences(run: RunConfig, config: TrainConfig) -> None:
    """Say in one line what goes before what, and where the run, its preset and the config that is served differ."""
    used, theirs = _served(config), _served(run.config)
    name = name_of(config)
    presets = _served(PRESETS[name].config) if name in PRESETS else used
    taken = [
        f"{field} {value}, not {presets[field]} as in preset {name}"
        for field, value in used.items()
        if value == theirs.get(field) != presets[field]
    ]
    given = [
        f"{field} {value} as given, not {theirs[field]} as in the run"
        for field, value in used.items()
        if value != theirs.get(field, value)
    ]
    rule = "a run's config goes before a preset, and what is given goes before both"
    told = "; ".join([*taken, *given, rule] if taken or given else ["served as it says"])
    log.log(logging.WARNING if given else logging.INFO, "run config %s (%s): %s", run.path, _title(run.config), told)


def _served(config: TrainConfig) -> dict[str, Any]:
    """The fields that change what is answered, by name."""
    of_algorithm = {name: getattr(config.algo, name) for name in _SERVED if hasattr(config.algo, name)}
    return {"env_id": config.env_id, "algorithm": algorithm_of(config), **of_algorithm}


def _title(config: TrainConfig) -> str:
    return f"{algorithm_of(config)} on {config.env_id}"
