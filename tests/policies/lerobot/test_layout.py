"""What a user may name, and which folder is then meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.layout import find_folder, newest_folder, step_of


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def refusal(named: str) -> str:
    with pytest.raises(ConfigError) as refused:
        find_folder(named)
    return str(refused.value)


def test_a_run_its_checkpoints_a_step_and_the_folder_itself_are_named(tmp_path: Path) -> None:
    early = make(tmp_path / "run/checkpoints/000500/pretrained_model")
    late = make(tmp_path / "run/checkpoints/010000/pretrained_model")
    assert find_folder(f"{tmp_path}/run") == find_folder(f"{tmp_path}/run/checkpoints") == late
    assert find_folder(f"{tmp_path}/run/checkpoints/000500") == find_folder(str(early)) == early


def test_a_runs_last_checkpoint_goes_before_the_highest_step(tmp_path: Path) -> None:
    make(tmp_path / "checkpoints/000500/pretrained_model")
    make(tmp_path / "checkpoints/9/pretrained_model")
    make(tmp_path / "checkpoints/notes/pretrained_model")
    assert find_folder(str(tmp_path)).parent.name == "000500"
    (tmp_path / "checkpoints/last").symlink_to("9")
    assert find_folder(str(tmp_path)).parent.name == "last"


def test_what_is_no_policys_folder_is_told_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "config.yaml").touch()
    assert "got folders logs" in refusal(str(tmp_path))
    assert f"got a file; name its folder, {tmp_path}" in refusal(f"{tmp_path}/config.yaml")
    assert "got nothing there" in refusal(f"{tmp_path}/gone")


def test_a_name_of_the_hub_is_told_with_the_command_that_fetches_it() -> None:
    assert "hf download lerobot/act_aloha --local-dir act_aloha" in refusal("lerobot/act_aloha")


def test_a_runs_newest_complete_checkpoint_is_the_one_that_last_points_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the run's folder is gone, or not there yet"):
        newest_folder(str(tmp_path / "run"))
    early = make(tmp_path / "run/checkpoints/000500/pretrained_model")
    assert newest_folder(str(tmp_path / "run")) is None
    last = tmp_path / "run/checkpoints/last"
    last.symlink_to("000500")
    assert newest_folder(str(tmp_path / "run")) == newest_folder(str(tmp_path / "run/checkpoints")) == early
    late = make(tmp_path / "run/checkpoints/001000/pretrained_model")
    assert newest_folder(str(tmp_path / "run")) == early
    last.unlink()
    assert newest_folder(str(tmp_path / "run")) is None
    last.symlink_to("001000")
    assert newest_folder(str(tmp_path / "run")) == late
    assert step_of(late) == step_of(last / "pretrained_model") == 1000
    assert step_of(tmp_path / "run") is None
    with pytest.raises(ConfigError, match="expected a training run's folder"):
        newest_folder(str(early))
