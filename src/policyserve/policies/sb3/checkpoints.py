"""The checkpoints of a run that Stable-Baselines3's CheckpointCallback writes: `NAME_<N>_steps.zip`, by their steps."""

from __future__ import annotations

import re
from pathlib import Path

from policyserve.core.errors import ConfigError
from policyserve.policies.zips import names_in

CHECKPOINT = re.compile(r"(.+)_([0-9]{1,18})_steps\.zip", re.ASCII)


def step_of(file: Path) -> int | None:
    """The step that a checkpoint's name tells; None for any other file."""
    found = CHECKPOINT.fullmatch(file.name)
    return None if found is None else int(found[2])


def newest_checkpoint(file: Path) -> tuple[int, Path] | None:
    """The complete checkpoint of the highest step beside this one, of the same name; None while there is none.

    One is complete if it has the zip's table, which is written last; and, where others have statistics of VecNormalize,
    which are written after the zip, if its own are there. Raises ConfigError for a folder that is gone, and for a name
    that tells no step.
    """
    named = CHECKPOINT.fullmatch(file.name)
    if named is None:
        raise ConfigError(
            f"{file}: expected a checkpoint such as {file.stem}_1000_steps.zip, whose name tells its step"
        )
    if not file.parent.is_dir():
        raise ConfigError(f"{file.parent}: the run's folder is gone, or not there yet")
    steps = {int(found[2]): path for path in file.parent.iterdir() if (found := _of_run(path, named[1]))}
    statistics = {path.name for path in file.parent.glob(f"{_literal(named[1])}_vecnormalize_*_steps.pkl")}
    for step in sorted(steps, reverse=True):
        has_its_own = not statistics or f"{named[1]}_vecnormalize_{step}_steps.pkl" in statistics
        if has_its_own and _is_whole(steps[step]):
            return step, steps[step]
    return None


def _is_whole(file: Path) -> bool:
    try:
        return bool(names_in(file, str(file)))
    except ConfigError:
        return False


def _of_run(path: Path, name: str) -> re.Match[str] | None:
    found = CHECKPOINT.fullmatch(path.name)
    return found if found is not None and found[1] == name else None


def _literal(name: str) -> str:
    """A name in which a glob finds nothing to replace."""
    return re.sub(r"([*?\[])", r"[\1]", name)
