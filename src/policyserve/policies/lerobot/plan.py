"""What a command line and a checkpoint's small files say together, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from policyserve.core.errors import ConfigError
from policyserve.policies.fields import Fields, read_object
from policyserve.policies.lerobot.config import PolicyConfig, read_config
from policyserve.policies.lerobot.layout import WEIGHTS, find_folder
from policyserve.policies.lerobot.names import check_weights
from policyserve.policies.lerobot.options import LeRobotFlags, Mode
from policyserve.policies.lerobot.processors import Processors, has_processors, read_processors
from policyserve.policies.lerobot.rtc import takes_prefix
from policyserve.policies.lerobot.spec import names_of
from policyserve.policies.lerobot.statistics import Statistics, read_legacy_statistics, read_statistics
from policyserve.policies.naming import Names
from policyserve.policies.safetensors_files import read_header

_ADAPTER = "adapter_config.json"
_SMALL = 1 << 20  # weights, below which a second thread costs more than it brings


@dataclass(frozen=True)
class Plan:
    """One of our policies, ready to be loaded. steps: actions of an answer in mode `chunk`. weights: names of them.

    layout: `processors`, or `legacy` for statistics among the weights. joints: names of numbers, by feature.
    """

    config: PolicyConfig
    statistics: Statistics
    names: Names
    weights: tuple[str, ...]
    layout: str
    mode: Mode
    steps: int
    threads: int | None
    joints: Mapping[str, tuple[str, ...]]


def read_folder(named: str) -> PolicyConfig:
    """The policy that a user named; raises ConfigError for what is none, or an adapter without its base."""
    folder = find_folder(named)
    if (folder / _ADAPTER).exists():
        told = "the weights are an adapter of another model's; merge them into one first"
        raise ConfigError(f"{folder / _ADAPTER}: {told} (PEFT's merge_and_unload)")
    return read_config(folder)


def make_plan(config: PolicyConfig, flags: LeRobotFlags) -> Plan:
    """Check a policy of ours against its flags; raises ConfigError."""
    network = config.network
    assert network is not None
    takes_prefix(config.kind, flags, is_step=False)
    stored = read_header(config.folder / WEIGHTS)
    weights = check_weights(config, stored)
    processors: Processors | None = None
    if has_processors(config.folder):
        processors = read_processors(config.folder)
        statistics = read_statistics(config, processors)
    else:
        statistics = read_legacy_statistics(config, stored)
    mode = flags.mode or ("step" if config.n_obs_steps > 1 or network.ensemble is not None else "chunk")
    _check_mode(mode, config, flags)
    check_resize(config, flags)
    is_small = sum(map(prod, weights.values())) < _SMALL
    return Plan(
        config=config,
        statistics=statistics,
        names=names_of(config.used, processors, flags.renames),
        weights=tuple(weights),
        layout="legacy" if processors is None else "processors",
        mode=mode,
        steps=flags.steps(network.n_action_steps, network.chunk_size - config.n_obs_steps + 1),
        threads=1 if flags.threads is None and is_small else flags.threads,
        joints={} if flags.dataset_info is None else _joints(Path(flags.dataset_info), config),
    )


def _check_mode(mode: Mode, config: PolicyConfig, flags: LeRobotFlags) -> None:
    told = f"which {config.kind} with n_obs_steps {config.n_obs_steps} is served in by default"
    if mode == "step" and flags.horizon is not None:
        raise ConfigError(f"--horizon: expected none in mode step, {told}; --mode chunk")
    if flags.history and mode == "step":
        raise ConfigError(f"--history: expected none in mode step, {told}; --mode chunk")
    if flags.history and config.n_obs_steps == 1:
        raise ConfigError("--history: expected a policy that looks at several frames, got n_obs_steps 1")


def check_resize(config: PolicyConfig, flags: LeRobotFlags) -> None:
    """Raise ConfigError for --resize of a policy that sees nothing."""
    if flags.resize is not None and not config.images:
        raise ConfigError(f"--resize: expected none for this {config.kind}, which takes no pictures")


def _joints(path: Path, config: PolicyConfig) -> dict[str, tuple[str, ...]]:
    """The names of a dataset's numbers, of the features whose number of them fits; raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"--dataset-info: {path}: expected a dataset's meta/info.json, got nothing there")
    features = Fields(read_object(path), str(path)).section("features")
    found: dict[str, tuple[str, ...]] = {}
    for one in (*config.used, config.action):
        if one.name not in features or len(one.shape) != 1:
            continue
        names = features.section(one.name).get("names")
        names = next(iter(names.values()), None) if isinstance(names, dict) else names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            continue
        if len(names) != one.shape[0]:
            told = f"{one.name}: expected {one.shape[0]} names, as the policy has it, got {len(names)}"
            raise ConfigError(f"--dataset-info: {path}: {told}")
        found[one.name] = tuple(names)
    return found
