"""The processors' files: steps are data, and what is not known is refused, whatever it asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.processors import (
    AFTER,
    BEFORE,
    check_for_package,
    has_processors,
    read_processors,
)
from tests.policies.lerobot.cases import copied, folder


def with_step(place: Path, name: str, index: int, step: Any, case: str = "act_state") -> Path:
    target = copied(case, place)
    path = target / name
    values = json.loads(path.read_text())
    values["steps"].insert(index, step)
    path.write_text(json.dumps(values))
    return target


def refusal(target: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        read_processors(target)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_both_files_are_read() -> None:
    read = read_processors(folder("act_ensemble"))
    assert read.before is not None
    assert read.after is not None
    assert read.before.modes["STATE"] == read.after.modes["ACTION"] == "MIN_MAX"
    assert (read.renames, read.before.keys, read.before.eps) == ({}, None, 1e-8)


def test_a_policy_of_before_has_none() -> None:
    assert not has_processors(folder("act_legacy_033"))


def test_a_step_by_its_class_is_never_imported(tmp_path: Path) -> None:
    (tmp_path / "evil_step.py").write_text("raise SystemExit('imported')")
    step = {"class": "evil_step.Step", "config": {}}
    for name in (BEFORE, AFTER):
        target = with_step(tmp_path / name, name, 1, step)
        told = f"{name} step 1 wants to import evil_step.Step: policyserve imports nothing that a file names"
        assert told in refusal(target)
        with pytest.raises(ConfigError, match="imports nothing that a file names"):
            check_for_package(target)
    assert "evil_step" not in sys.modules


@pytest.mark.parametrize(
    ("name", "step", "told"),
    [
        (BEFORE, {"registry_name": "delta_action_processor"}, "delta_action_processor, would change the actions"),
        (AFTER, {"registry_name": "absolute_actions_processor"}, "would change the actions; not supported"),
        (AFTER, {"registry_name": "normalizer_processor"}, "would change the actions; not supported"),
        (BEFORE, {"registry_name": "tokenizer_processor"}, "would change the actions; not supported"),
        (BEFORE, {"registry_name": 7}, "expected registry_name and config"),
        (BEFORE, [], "expected an object, got list"),
        (BEFORE, {"registry_name": "device_processor", "config": {"float_dtype": "float16"}}, "float_dtype: expected"),
        (BEFORE, {"registry_name": "rename_observations_processor", "config": {"rename_map": [1]}}, "rename_map"),
    ],
)
def test_a_step_that_would_be_left_out_is_refused(name: str, step: Any, told: str, tmp_path: Path) -> None:
    assert told in refusal(with_step(tmp_path, name, 0, step))


def test_renaming_behind_the_normaliser_and_a_second_normaliser_are_refused(tmp_path: Path) -> None:
    rename = {"registry_name": "rename_observations_processor", "config": {"rename_map": {"a": "b"}}}
    assert "stands behind normalizer_processor" in refusal(with_step(tmp_path / "a", BEFORE, 4, rename))
    again = json.loads((folder("act_state") / BEFORE).read_text())["steps"][3]
    assert "expected one normalizer_processor" in refusal(with_step(tmp_path / "b", BEFORE, 4, again))


def test_a_state_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    text = (target / BEFORE).read_text().replace("policy_preprocessor_step_3", "../policy_preprocessor_step_3")
    (target / BEFORE).write_text(text)
    assert "state_file: expected a name such as x.safetensors" in refusal(target)


def test_one_file_without_the_other_is_refused(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    (target / AFTER).unlink()
    assert "does not exist, and the other of the two processors' files does" in refusal(target)


def test_an_unknown_setting_of_a_normaliser_is_refused(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    values = json.loads((target / BEFORE).read_text())
    values["steps"][3]["config"]["clip"] = 5
    (target / BEFORE).write_text(json.dumps(values))
    assert "clip would change the actions; not supported" in refusal(target)


def test_the_package_may_be_handed_a_tokenizers_step() -> None:
    check_for_package(folder("smolvla_tiny"))
