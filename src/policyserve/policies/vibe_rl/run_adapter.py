"""A training run on the command line, by its folder: `vibe_rl:runs/Acrobot-v1`, whatever it was trained in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from policyserve.core.errors import ConfigError, names_told
from policyserve.core.policy import Policy
from policyserve.core.recipe import Newest, OnStage, Recipe
from policyserve.policies.files import stamp_of
from policyserve.policies.registry import Source, check_given
from policyserve.policies.vibe_rl.checkpoint import is_step_name, newest_checkpoint
from policyserve.policies.vibe_rl.policy import create_trained_policy
from policyserve.policies.vibe_rl.presets import algorithm_of
from policyserve.policies.vibe_rl.run_config import NAME, find_run_config


@dataclass(frozen=True)
class RunFlags:
    """Flags of a training run; its config.json says how it was trained."""

    step: int | None = None
    """Load this step; None: the latest."""
    norm_stats_path: Annotated[str | None, arg(metavar="PATH")] = None
    """Normalisation statistics; None: norm_stats.json of the run, if there is one."""
    backend: Literal["numpy", "jax"] = "numpy"
    """What computes the network; jax needs the extra of that name."""
    max_batch: int = 64
    """Observations per call of the network."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        check_given(norm_stats_path=self.norm_stats_path)
        if self.max_batch < 1:
            raise ConfigError(f"max_batch: expected 1 or more, got {self.max_batch}")


@dataclass(frozen=True)
class RunAdapter:
    """Serves the run in a folder: config.json, norm_stats.json, checkpoints/, and maybe environment.json."""

    target: str
    help = "a training run of vibe_rl or scripts/train_demo.py, by its folder"
    rest = "FOLDER"
    flags = RunFlags

    def defaults(self, given: RunFlags | None) -> RunFlags:
        return RunFlags()

    def source(self, flags: RunFlags) -> Source:
        """Raises ConfigError if the folder is none, or has no run's config.json."""
        named = self.target.partition(":")[2]
        folder = Path(named).expanduser()
        if not folder.is_dir():
            got = "a file" if folder.exists() else "nothing there"
            raise ConfigError(f"{named}: expected a training run's folder, got {got}")
        checkpoints = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
        run = find_run_config(checkpoints)
        if run is None:
            told = f"{named}: expected a training run's config.json in it, or in the folder above"
            raise ConfigError(f"{told}{_runs_below(folder, named)}")
        recipe = Recipe(f"{__name__}:load_run", {"flags": flags, "directory": checkpoints})
        title = f"{algorithm_of(run.config)} on {run.config.env_id}"
        is_run = flags.step is None and not is_step_name(folder.name)
        newest = partial(_newest, flags, checkpoints) if is_run else None
        return Source(title, f"run {folder.absolute()}", recipe, env_id=run.config.env_id, newest=newest)


def _newest(flags: RunFlags, checkpoints: Path) -> Newest | None:
    """The newest complete checkpoint, for --follow. checkpoints: the run's folder where that had none yet."""
    if (checkpoints / "checkpoints").is_dir():
        checkpoints = checkpoints / "checkpoints"
    found = newest_checkpoint(checkpoints)
    if found is None or found.step is None:
        return None
    arguments = {"flags": replace(flags, step=found.step), "directory": checkpoints}
    return Newest(found.step, Recipe(f"{__name__}:load_run", arguments), stamp_of(found.path))


def _runs_below(folder: Path, named: str) -> str:
    """Which runs are meant, maybe, where the folder is one of runs."""
    names = sorted(path.parent.name for path in folder.glob(f"*/{NAME}"))
    if len(names) > 1:
        return f"; it has the runs {names_told(names)}: take {named.rstrip('/')}/NAME"
    return f"; did you mean vibe_rl:{named.rstrip('/')}/{names[0]}?" if names else ""


def load_run(flags: RunFlags, directory: Path, on_stage: OnStage) -> Policy:
    """The policy of a run, as its own config.json tells; raises ConfigError."""
    on_stage("loading the checkpoint")
    return create_trained_policy(
        None,
        directory,
        step=flags.step,
        norm_stats_path=flags.norm_stats_path,
        backend=flags.backend,
        max_batch=flags.max_batch,
    )
