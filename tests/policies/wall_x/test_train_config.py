"""The training run's YAML file, with the older and the newer fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.wall_x.train_config import TrainConfig, read_train_config
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import golden

import_or_skip("yaml")


def written(tmp_path: Path, text: str) -> TrainConfig:
    (tmp_path / "config.yml").write_text(text, encoding="utf-8")
    return read_train_config(tmp_path / "config.yml")


def test_the_older_fields_name_a_robot_and_its_statistics() -> None:
    config = read_train_config(golden("checkpoint_flow", "config.yml"))
    assert config.robot == "physical-intelligence/libero"
    assert config.horizon == 32
    assert config.norm_stats_path == golden("checkpoint_flow") / "norm_stats.physical-intelligence__libero.json"
    assert config.processor_path == golden("checkpoint_flow")
    assert sum(size for _, size in config.dof) == 20
    assert config.action_names(7) == [f"action_all[{index}]" for index in range(7)]
    assert config.state_names(8) == [f"state_all[{index}]" for index in range(8)]
    names = config.action_names(20)
    assert names is not None
    assert names[5:8] == [
        "follow_left_ee_rotation[2]",
        "follow_left_gripper",
        "follow_right_ee_cartesian_pos[0]",
    ]
    assert config.action_names(6) is None


def test_the_newer_fields_are_enough(tmp_path: Path) -> None:
    config = written(tmp_path, "dof_config: {arm: 2}\nagent_pos_config: {arm: 2, hand: 1}\nmin_key: q01\n")
    assert (config.robot, config.horizon, config.norm_stats_path) == (None, None, None)
    assert (config.min_key, config.delta_key) == ("q01", "delta")
    assert config.state_names(3) == ["arm[0]", "arm[1]", "hand"]


def test_a_robot_that_is_not_enabled_is_not_read(tmp_path: Path) -> None:
    config = written(tmp_path, "customized_robot_config: {name: x}\ndata: {lerobot_config: {repo_id: y}}\n")
    assert config.robot is None
    config = written(tmp_path, "data: {use_lerobot: true, lerobot_config: {repo_id: y}}\n")
    assert config.robot == "y"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "expected a training run's YAML file, got while parsing"),
        ("- 1", "YAML file, got list"),
        ("", "YAML file, got NoneType"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("dof_config: {arm: two}", "dof_config: expected names with their numbers"),
        ("data: 3", "data: expected a section, got 3"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"config.yml: .*{reason}") as refused:
        written(tmp_path, text)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing.yml: expected a training run's YAML file"):
        read_train_config(tmp_path / "nothing.yml")
