"""A vibe_rl preset on the command line: its flags, its demo, and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy
from policyserve.core.recipe import Newest, OnStage, Recipe
from policyserve.policies.files import stamp_of
from policyserve.policies.registry import Source, check_given
from policyserve.policies.vibe_rl.checkpoint import newest_checkpoint
from policyserve.policies.vibe_rl.config import TrainConfig
from policyserve.policies.vibe_rl.demo import DEMOS, demo_config, demo_directory
from policyserve.policies.vibe_rl.policy import create_trained_policy
from policyserve.policies.vibe_rl.presets import find_preset
from policyserve.policies.vibe_rl.run_config import starting_config


@dataclass(frozen=True)
class PresetFlags:
    """Flags of a vibe_rl preset."""

    checkpoint_dir: Annotated[str | None, arg(metavar="PATH")] = None
    """Directory of the checkpoint: holds state.eqx, step_<N>/ or orbax <N>/."""
    step: int | None = None
    """Load this step; None: the latest."""
    norm_stats_path: Annotated[str | None, arg(metavar="PATH")] = None
    """Normalisation statistics; None: norm_stats.json in the checkpoint directory or its parent, if there is one."""
    backend: Literal["numpy", "jax"] = "numpy"
    """What computes the network; jax needs the extra of that name."""
    rescale_actions: bool = True
    """Rescale SAC's actions to action_low … action_high; without, they are the raw tanh."""
    max_batch: int = 64
    """Observations per call of the network."""
    config: TrainConfig = field(default_factory=TrainConfig)
    """How the policy was trained. What is not given is taken from the run's config.json, in the checkpoint directory or
    its parent, and else from the preset."""
    usual: ClassVar[tuple[str, ...]] = ("checkpoint_dir", "step", "norm_stats_path", "backend")

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        check_given(checkpoint_dir=self.checkpoint_dir, norm_stats_path=self.norm_stats_path)
        if self.max_batch < 1:
            raise ConfigError(f"max_batch: expected 1 or more, got {self.max_batch}")


@dataclass(frozen=True)
class PresetAdapter:
    """Serves a checkpoint of a preset. needs_checkpoint: no demo stands in for one."""

    target: str
    needs_checkpoint: bool = False
    rest = ""
    flags = PresetFlags

    @property
    def help(self) -> str:
        return find_preset(self.target).description

    def defaults(self, given: PresetFlags | None) -> PresetFlags:
        """The config that the run's own config.json tells, or the demo's where that will be served, else the preset's.

        Raises ConfigError if the run belongs to another preset.
        """
        if given is not None and given.checkpoint_dir is not None:
            return PresetFlags(config=starting_config(self.target, given.checkpoint_dir))
        if self.needs_checkpoint or self.target not in DEMOS:
            return PresetFlags(config=find_preset(self.target).config)
        return PresetFlags(config=demo_config(self.target))

    def source(self, flags: PresetFlags) -> Source:
        """Raises ConfigError if no checkpoint is named and no demo stands in for it."""
        directory = flags.checkpoint_dir
        origin = str(directory)
        if directory is None and self.needs_checkpoint:
            raise ConfigError("--checkpoint_dir is required")
        if directory is None:
            if self.target not in DEMOS:
                raise ConfigError(f"--checkpoint-dir is required: demos ship for {', '.join(DEMOS)} only")
            directory = str(demo_directory(self.target) / "checkpoints")
            origin = "the demo checkpoint that ships with policyserve (no --checkpoint-dir given)"
        recipe = Recipe(f"{__name__}:load_preset", {"flags": flags, "directory": directory})
        title, path = f"{self.target}: {self.help}", Path(directory)
        newest = None if flags.checkpoint_dir is None or flags.step is not None else partial(_newest, flags, path)
        return Source(title, origin, recipe, env_id=flags.config.env_id, files=lambda: [path], newest=newest)


def _newest(flags: PresetFlags, directory: Path) -> Newest | None:
    """The newest complete checkpoint, for --follow."""
    found = newest_checkpoint(directory)
    if found is None or found.step is None:
        return None
    arguments = {"flags": replace(flags, step=found.step), "directory": str(directory)}
    return Newest(found.step, Recipe(f"{__name__}:load_preset", arguments), stamp_of(found.path))


def load_preset(flags: PresetFlags, directory: str, on_stage: OnStage) -> Policy:
    """The policy that a preset's flags describe, from a checkpoint's directory; raises ConfigError."""
    on_stage("loading the checkpoint")
    if not Path(directory).exists():
        raise ConfigError(f"checkpoint directory not found: {directory}")
    return create_trained_policy(
        flags.config,
        directory,
        step=flags.step,
        norm_stats_path=flags.norm_stats_path,
        backend=flags.backend,
        rescale_actions=flags.rescale_actions,
        max_batch=flags.max_batch,
    )
