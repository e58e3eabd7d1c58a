"""The YAML file of a training run, and what it says about a robot: names, widths, horizon, statistics.

It has had two sets of fields. The newer one has dof_config and agent_pos_config alone; the older one also names one
robot (customized_robot_config) or LeRobot data set, whose vectors fill the first places of the 20 wide layout.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies.files import reading

Parts = tuple[tuple[str, int], ...]  # names of a vector's parts and how many numbers each has


@dataclass(frozen=True)
class TrainConfig:
    """What serving needs of the file. fields: all of it. Paths are relative to the file."""

    path: Path
    fields: Mapping[str, Any]
    dof: Parts = ()
    agent_pos: Parts = ()
    robot_dof: Parts = ()
    robot_agent_pos: Parts = ()
    robot: str | None = None
    horizon: int | None = None
    processor_path: Path | None = None
    norm_stats_path: Path | None = None
    min_key: str = "min"
    delta_key: str = "delta"

    def action_names(self, action_dim: int) -> list[str] | None:
        """A name for each number of an action, where the file has names for just so many."""
        return _names(action_dim, self.dof, self.robot_dof)

    def state_names(self, state_dim: int) -> list[str] | None:
        """A name for each number of a state, where the file has names for just so many."""
        return _names(state_dim, self.agent_pos, self.robot_agent_pos)


def read_train_config(path: Path) -> TrainConfig:
    """Read the file; raises ConfigError naming file and field, MissingDependency without PyYAML."""
    fields = _read_yaml(path)
    reader = _Fields(fields, path)
    data = reader.section("data")
    robot = reader.section("customized_robot_config") if fields.get("enable_customized_robot_config") else {}
    lerobot = data.get("lerobot_config") if data.get("use_lerobot") else None
    repo_id = lerobot.get("repo_id") if isinstance(lerobot, Mapping) else None
    horizon = data.get("action_horizon_flow", data.get("action_horizon"))
    return TrainConfig(
        path=path,
        fields=fields,
        dof=reader.parts("dof_config", fields),
        agent_pos=reader.parts("agent_pos_config", fields),
        robot_dof=reader.parts("customized_dof_config", robot),
        robot_agent_pos=reader.parts("customized_agent_pos_config", robot),
        robot=_text(robot.get("name")) or _text(repo_id),
        horizon=horizon if isinstance(horizon, int) else None,
        processor_path=reader.path("processor_path"),
        norm_stats_path=reader.path("norm_stats_path"),
        min_key=_text(fields.get("min_key")) or "min",
        delta_key=_text(fields.get("delta_key")) or "delta",
    )


@dataclass(frozen=True)
class _Fields:
    values: Mapping[str, Any]
    file: Path

    def section(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.file}: {name}: expected a section, got {_short(value)}")
        return value

    def parts(self, name: str, section: Mapping[str, Any]) -> Parts:
        value = section.get(name)
        if value is None:
            return ()
        if not isinstance(value, Mapping) or not all(type(size) is int and size > 0 for size in value.values()):
            raise ConfigError(f"{self.file}: {name}: expected names with their numbers of values, got {_short(value)}")
        return tuple((str(part), size) for part, size in value.items())

    def path(self, name: str) -> Path | None:
        """A path that the training machine had; whether it exists here is for its reader to say."""
        value = _text(self.values.get(name))
        return self.file.parent / value if value else None


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependency("PyYAML", "wall-x") from error
    with reading(path, "a training run's YAML file"):  # PyYAML raises ValueError and more for dates that are none
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{path}: expected a training run's YAML file, got {type(fields).__name__}")
    return fields


def _short(value: Any) -> str:
    """Its beginning; the whole is never written out, since YAML can repeat a part beyond all memory."""
    return reprlib.repr(value)[:60]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _names(size: int, *candidates: Parts) -> list[str] | None:
    for parts in candidates:
        if sum(count for _, count in parts) == size:
            return [name if count == 1 else f"{name}[{i}]" for name, count in parts for i in range(count)]
    return None
