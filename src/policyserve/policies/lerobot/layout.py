"""Where a LeRobot policy's files are, in what a user may name: a run, its checkpoints, a step, the folder itself."""

from __future__ import annotations

import re
from pathlib import Path

from policyserve.core.errors import ConfigError, names_told

CONFIG, WEIGHTS = "config.json", "model.safetensors"

_FOLDER = "pretrained_model"
_CHECKPOINTS = "checkpoints"
_LAST = "last"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def find_folder(named: str) -> Path:
    """The folder with config.json: of a run the last checkpoint's, or else the highest step's.

    Raises ConfigError where there is none; for what looks like a Hub's name with the command that fetches it.
    """
    path = Path(named).expanduser()
    if not path.is_dir():
        raise ConfigError(f"{named}: expected a LeRobot policy's folder, got {_instead(named, path)}")
    folder = _within(path)
    if folder is None:
        steps = names_told(sorted(one.name for one in path.iterdir() if one.is_dir()))
        told = f"expected {CONFIG} in it, or {_FOLDER}/ or {_CHECKPOINTS}/ of a training run"
        raise ConfigError(f"{named}: {told}, got folders {steps}")
    return folder


def step_of(folder: Path) -> int | None:
    """The step of a training run's checkpoint, by its folder's name; None for any other policy's folder."""
    name = folder.resolve().parent.name
    return int(name) if folder.name == _FOLDER and _is_step(name) else None


def newest_folder(named: str) -> Path | None:
    """The folder of the run's newest complete checkpoint: the one that `last` points to; None while there is none.

    lerobot-train sets that link when a checkpoint is written. Raises ConfigError for a run that is gone, and for what
    is no run.
    """
    path = Path(named).expanduser()
    checkpoints = path if path.name == _CHECKPOINTS else path / _CHECKPOINTS
    if not path.is_dir():
        raise ConfigError(f"{named}: the run's folder is gone, or not there yet")
    if (path / CONFIG).is_file() or (path / _FOLDER).is_dir():
        raise ConfigError(f"{named}: expected a training run's folder, with {_CHECKPOINTS}/ in it, got one checkpoint")
    last = checkpoints / _LAST
    target = last.resolve() / _FOLDER
    return target if last.is_symlink() and (target / CONFIG).is_file() and _is_step(target.parent.name) else None


def _within(path: Path) -> Path | None:
    if (path / CONFIG).is_file():
        return path
    if (path / _FOLDER / CONFIG).is_file():
        return path / _FOLDER
    checkpoints = path / _CHECKPOINTS if (path / _CHECKPOINTS).is_dir() else path
    steps = [one for one in checkpoints.iterdir() if (one / _FOLDER / CONFIG).is_file()]
    best = max(steps, key=_rank, default=None)
    return None if best is None else best / _FOLDER


def _rank(step: Path) -> tuple[bool, int, str]:
    number = int(step.name) if _is_step(step.name) else -1
    return step.name == _LAST, number, step.name


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 20


def _instead(named: str, path: Path) -> str:
    if path.exists():
        return f"a file; name its folder, {path.parent}"
    if _HUB_ID.fullmatch(named):
        return f"nothing there; from the Hub: hf download {named} --local-dir {named.partition('/')[2]}"
    return "nothing there"
