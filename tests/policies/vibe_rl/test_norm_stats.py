"""Which norm_stats.json is used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl.norm_stats import check_size, find_norm_stats
from policyserve.transforms import read_norm_stats

KEYS = ("obs", "action")


def write(path: Path, mean: float, key: str = "obs") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: {"mean": [mean], "std": [1], "q01": [0], "q99": [1]}}))
    return path


def mean_of(folder: Path | str, path: Path | None = None) -> float:
    return float(find_norm_stats(folder, path, KEYS)["obs"].mean[0])


def test_the_checkpoints_directory_comes_before_its_parent(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    assert find_norm_stats(folder, None, KEYS) == {}
    write(tmp_path / "norm_stats.json", 2)
    assert mean_of(folder) == 2
    write(folder / "norm_stats.json", 1)
    assert mean_of(folder) == 1
    assert mean_of(folder, write(tmp_path / "elsewhere" / "stats.json", 3)) == 3


def test_the_parent_is_the_one_that_is_spelled_and_not_that_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    write(tmp_path / "run" / "norm_stats.json", 1)
    (tmp_path / "linked").symlink_to(tmp_path / "run" / "checkpoints")
    assert find_norm_stats(tmp_path / "linked", None, KEYS) == {}
    write(tmp_path / "norm_stats.json", 2)
    assert mean_of(tmp_path / "linked") == 2


def test_best_as_a_file_is_searched_like_the_link_that_it_stands_for(tmp_path: Path) -> None:
    (tmp_path / "step_1").mkdir()
    (tmp_path / "best").write_text("step_1")
    write(tmp_path / "norm_stats.json", 2)
    assert mean_of(tmp_path / "best") == 2
    write(tmp_path / "step_1" / "norm_stats.json", 1)
    assert mean_of(tmp_path / "best") == 1


def test_the_working_directory_is_a_checkpoint_directory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "norm_stats.json", 1)
    assert mean_of(".") == 1


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "norm_stats.json", 1)
    with pytest.raises(ConfigError, match=r"norm_stats_path: no such file: .*other\.json"):
        find_norm_stats(tmp_path, tmp_path / "other.json", KEYS)
    with pytest.raises(ConfigError, match="norm_stats_path: no such file"):
        find_norm_stats(tmp_path, tmp_path, KEYS)


def test_a_named_file_without_the_keys_is_an_error_and_one_found_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "norm_stats.json", 1, key="state")
    with pytest.raises(ConfigError, match="expected statistics of obs or action, got keys state"):
        find_norm_stats(tmp_path, path, KEYS)
    assert list(find_norm_stats(tmp_path, None, KEYS)) == ["state"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{path} are not used: expected statistics of obs or action, got keys state" in record.getMessage()


def write_openpi(path: Path, **means: float) -> Path:
    entries = {key: {"mean": [mean], "std": [1], "q01": None, "q99": None} for key, mean in means.items()}
    path.write_text(json.dumps({"norm_stats": entries}))
    return path


def test_openpis_names_are_those_of_the_policy(tmp_path: Path) -> None:
    path = write_openpi(tmp_path / "norm_stats.json", state=1, actions=2)
    for keys in (KEYS, ("pose", "torque")):
        stats = find_norm_stats(tmp_path, path, keys)
        assert [float(stats[key].mean[0]) for key in keys] == [1, 2]


def test_a_file_that_has_the_policys_own_keys_is_not_renamed(tmp_path: Path) -> None:
    write_openpi(tmp_path / "norm_stats.json", obs=1, state=3, actions=2)
    stats = find_norm_stats(tmp_path, None, KEYS)
    assert {key: float(entry.mean[0]) for key, entry in stats.items()} == {"obs": 1, "state": 3, "action": 2}


def test_openpis_file_without_mean_or_deviation_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "norm_stats.json").write_text('{"norm_stats": {"state": {"mean": [0], "q01": [0], "q99": [1]}}}')
    with pytest.raises(
        ConfigError, match=r"json: norm_stats: state: expected mean, std, got mean, q01, q99: std missing"
    ):
        find_norm_stats(tmp_path, None, KEYS)


@pytest.mark.parametrize("content", ["{", "[]", '{"obs": {"mean": [0]}}'])
def test_a_malformed_file_is_an_error_that_names_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "norm_stats.json").write_text(content)
    with pytest.raises(ConfigError, match=r"norm_stats\.json: "):
        find_norm_stats(tmp_path, None, KEYS)


def test_statistics_of_the_run_around_a_step_are_not_forgotten_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints" / "step_1").mkdir(parents=True)
    write(tmp_path / "norm_stats.json", 1)
    with caplog.at_level(logging.WARNING):
        assert find_norm_stats(tmp_path / "checkpoints" / "step_1", None, KEYS) == {}
    assert "is not used unless norm_stats_path names it" in caplog.text


@pytest.mark.parametrize("numbers", [1.0, [1.0], [1.0, 2.0, 3.0]])
def test_one_number_or_one_per_feature_fits(numbers: Any) -> None:
    entry = {"mean": numbers, "std": numbers, "q01": 0, "q99": 1}
    check_size(read_norm_stats({"obs": entry}, "n.json")["obs"], "obs", 3)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_another_number_of_features_is_refused(name: str) -> None:
    entry = {"mean": [0] * 3, "std": [1] * 3, "q01": 0, "q99": 1, name: list(np.arange(4.0))}
    with pytest.raises(ConfigError, match=f"obs/{name}: expected 3 numbers, got 4"):
        check_size(read_norm_stats({"obs": entry}, "n.json")["obs"], "obs", 3)
