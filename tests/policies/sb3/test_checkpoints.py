"""The checkpoints of a run of Stable-Baselines3: which is the newest that is complete."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies import registry
from policyserve.policies.sb3.checkpoints import newest_checkpoint, step_of
from tests.policies.sb3.cases import path_of

PPO = path_of("ppo_robot")


def test_a_zip_is_complete_once_it_has_its_table(tmp_path: Path) -> None:
    first, second = tmp_path / "rl_model_900_steps.zip", tmp_path / "rl_model_1000_steps.zip"
    assert newest_checkpoint(first) is None
    shutil.copy(PPO, first)
    second.write_bytes(PPO.read_bytes()[:-30])
    shutil.copy(PPO, tmp_path / "other_2000_steps.zip")
    assert newest_checkpoint(first) == (900, first)
    shutil.copy(PPO, second)
    assert newest_checkpoint(first) == (1000, second)


def test_its_statistics_are_waited_for_where_others_have_some(tmp_path: Path) -> None:
    first, second = tmp_path / "a[1]_9_steps.zip", tmp_path / "a[1]_10_steps.zip"
    for file in (first, second):
        shutil.copy(PPO, file)
    (tmp_path / "a[1]_vecnormalize_9_steps.pkl").touch()
    assert newest_checkpoint(first) == (9, first)
    (tmp_path / "a[1]_vecnormalize_10_steps.pkl").touch()
    assert newest_checkpoint(first) == (10, second)


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a checkpoint such as model_1000_steps\.zip"):
        newest_checkpoint(tmp_path / "model.zip")
    with pytest.raises(ConfigError, match="the run's folder is gone"):
        newest_checkpoint(tmp_path / "gone" / "model_1_steps.zip")
    assert step_of(tmp_path / "model.zip") is None


def test_a_run_can_be_followed_from_any_of_its_zips(tmp_path: Path) -> None:
    file = tmp_path / "rl_model_900_steps.zip"
    shutil.copy(PPO, file)
    adapter = registry.find(f"sb3:{file}")
    source = adapter.source(adapter.defaults(None))
    assert source.newest is not None
    newest = source.newest()
    assert newest is not None
    assert newest.step == newest.recipe(print).spec.metadata["checkpoint_step"] == 900
