"""Which policy a command is about: a preset and its flags, a demo, or an object of the user's."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy, as_policy, policy_from
from policyserve.engine.answering import OnStage
from policyserve.engine.recipe import Recipe
from policyserve.policies.vibe_rl import (
    DEMOS,
    PRESETS,
    TrainConfig,
    create_trained_policy,
    demo_config,
    demo_directory,
    starting_config,
)


@dataclass(frozen=True)
class PresetPolicy:
    """Flags of a vibe_rl preset."""

    checkpoint_dir: Path | None = None
    """Directory of the checkpoint: holds state.eqx, step_<N>/ or orbax <N>/."""
    step: int | None = None
    """Load this step; None: the latest."""
    norm_stats_path: Path | None = None
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

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise ConfigError(f"max_batch: expected 1 or more, got {self.max_batch}")


@dataclass(frozen=True)
class Source:
    """A policy that can be loaded, and where it comes from, for people."""

    title: str
    origin: str
    load: Recipe


def preset_default(name: str) -> PresetPolicy:
    """What a preset's flags are before its checkpoint directory is known."""
    return PresetPolicy(config=PRESETS[name].config)


def run_default(name: str, checkpoint_dir: Path | None) -> PresetPolicy:
    """What a preset's flags are when not given: what the run's own config.json says, else the preset.

    checkpoint_dir: None is the demo's, where one ships. Raises ConfigError if the run is another preset's.
    """
    if checkpoint_dir is not None:
        return PresetPolicy(config=starting_config(name, checkpoint_dir))
    return PresetPolicy(config=demo_config(name)) if name in DEMOS else preset_default(name)


def preset_source(name: str, flags: PresetPolicy) -> Source:
    """The policy of a preset; raises ConfigError if no checkpoint is named and no demo ships for it."""
    directory = flags.checkpoint_dir
    origin = str(directory)
    if directory is None:
        if name not in DEMOS:
            raise ConfigError(f"--checkpoint-dir is required: demos ship for {', '.join(DEMOS)} only")
        directory = demo_directory(name) / "checkpoints"
        origin = "the demo checkpoint that ships with policyserve (no --checkpoint-dir given)"
    elif not directory.exists():
        raise ConfigError(f"checkpoint directory not found: {directory}")

    recipe = Recipe(f"{__name__}:load_preset", {"flags": flags, "directory": directory})
    return Source(f"{name}: {PRESETS[name].description}", origin, recipe)


def load_preset(flags: PresetPolicy, directory: Path, on_stage: OnStage) -> Policy:
    """The policy that a preset's flags describe, from a checkpoint's directory."""
    on_stage("loading the checkpoint")
    return create_trained_policy(
        flags.config,
        directory,
        step=flags.step,
        norm_stats_path=flags.norm_stats_path,
        backend=flags.backend,
        rescale_actions=flags.rescale_actions,
        max_batch=flags.max_batch,
    )


def object_source(target: str) -> Source:
    """A policy of the user's, `package.module:name`, found from the working directory too.

    The name is a policy, a function of one observation, or a class or function without arguments that makes one.
    """
    module_name, _, name = target.partition(":")

    recipe = Recipe(f"{__name__}:load_object", {"module_name": module_name, "name": name})
    return Source(target, f"module {module_name}", recipe)


def load_object(module_name: str, name: str, on_stage: OnStage) -> Policy:
    """The policy of the user's that `module_name:name` is, or makes."""
    on_stage(f"importing {module_name}")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    found = _find(module_name, name)
    if not _makes_a_policy(found):
        return as_policy(found)
    try:
        return policy_from(found)
    except Exception as error:  # a stranger's class
        raise ConfigError(f"{module_name}:{name}() failed: {type(error).__name__}: {error}") from error


def _find(module_name: str, name: str) -> Any:
    try:
        found: Any = import_module(module_name)
    except Exception as error:  # a stranger's module
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            raise ConfigError(f"there is no module {module_name!r} here or on the Python path") from error
        raise ConfigError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{module_name}:{name} does not exist: no {part!r} in {module_name}")
        found = getattr(found, part)
    return found


def _makes_a_policy(found: object) -> bool:
    """Whether it is a class, or a function that takes no observation: those are called to get the policy."""
    if not inspect.isfunction(found):
        return isinstance(found, type)
    parameters = inspect.signature(found).parameters.values()
    return all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
