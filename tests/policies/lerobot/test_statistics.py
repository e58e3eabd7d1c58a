"""Statistics: of processors' files and of legacy buffers; where one is missing nothing is run raw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.config import read_config
from policyserve.policies.lerobot.layout import WEIGHTS
from policyserve.policies.lerobot.processors import AFTER, BEFORE, read_processors
from policyserve.policies.lerobot.statistics import Statistics, read_legacy_statistics, read_statistics
from policyserve.policies.safetensors_files import read_header
from tests.policies.lerobot.cases import copied, edit, folder, read_tensors, write_tensors

AFTER_NUMBERS = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
BEFORE_NUMBERS = "policy_preprocessor_step_3_normalizer_processor.safetensors"


def read(target: Path) -> Statistics:
    return read_statistics(read_config(target), read_processors(target))


def read_legacy(target: Path) -> Statistics:
    return read_legacy_statistics(read_config(target), read_header(target / WEIGHTS))


def refusal(target: Path, legacy: bool = False) -> str:
    with pytest.raises(ConfigError) as refused:
        read_legacy(target) if legacy else read(target)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def renamed(path: Path, old: str, new: str | None) -> None:
    """Call tensors otherwise; None: take them away."""
    tensors = read_tensors(path)
    kept = {name: values for name, values in tensors.items() if new is not None or not name.startswith(old)}
    write_tensors(path, {name.replace(old, new or old): values for name, values in kept.items()})


def test_mean_and_deviation_min_and_max_and_what_is_left_as_it_is() -> None:
    statistics = read(folder("act_two_cameras"))
    assert statistics.features["observation.images.top"].shift.shape == (3, 1, 1)
    assert statistics.action is not None
    assert (statistics.action.gain, statistics.action.offset) == (1.0, 0.0)
    statistics = read(folder("act_ensemble"))
    assert "observation.environment_state" not in statistics.features
    assert statistics.action is not None
    assert (statistics.action.gain, statistics.action.offset) == (2.0, -1.0)
    assert statistics.lowest is not None
    np.testing.assert_array_equal(statistics.action.shift, statistics.lowest)


def test_quantiles_take_the_place_of_min_and_max(tmp_path: Path) -> None:
    target = copied("act_ensemble", tmp_path)
    values = json.loads((target / AFTER).read_text())
    values["steps"][0]["config"]["norm_map"]["ACTION"] = "QUANTILES"
    (target / AFTER).write_text(json.dumps(values))
    tensors = read_tensors(target / AFTER_NUMBERS)
    tensors["action.q01"], tensors["action.q99"] = np.full(4, -1.0), np.array([1.0, 2.0, 3.0, -1.0])
    write_tensors(target / AFTER_NUMBERS, tensors)
    action = read(target).action
    assert action is not None
    np.testing.assert_array_equal(action.scale, np.array([2.0, 3.0, 4.0, 1e-8], np.float32))
    renamed(target / AFTER_NUMBERS, "action.q99", None)
    assert "expected statistics q01 and q99 of action, for QUANTILES" in refusal(target)


def test_no_statistics_of_the_action_are_told_with_those_that_are_there(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    renamed(target / AFTER_NUMBERS, "action.", "so100.buffer.action.")
    told = refusal(target)
    assert f"{AFTER} has no statistics for action (it has " in told
    assert "so100.buffer.action." in told
    assert told.endswith("actions would be sent un-normalised")


def test_a_feature_without_statistics_is_not_run_raw(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    renamed(target / BEFORE_NUMBERS, "observation.state.", "observation.velocity.")
    assert "observation.state" in refusal(target)


def test_a_feature_that_the_normaliser_does_not_list_is_not_run_raw(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    values = json.loads((target / BEFORE).read_text())
    del values["steps"][3]["config"]["features"]["observation.state"]
    (target / BEFORE).write_text(json.dumps(values))
    assert "features: expected observation.state of type STATE" in refusal(target)


def test_a_missing_normaliser_is_refused_where_something_is_to_be_normalised(tmp_path: Path) -> None:
    for name, index in ((BEFORE, 3), (AFTER, 0)):
        target = copied("act_state", tmp_path / name)
        values = json.loads((target / name).read_text())
        del values["steps"][index]
        (target / name).write_text(json.dumps(values))
        assert "normalizer_processor" in refusal(target)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_statistics_that_are_no_numbers_are_refused(tmp_path: Path, number: float) -> None:
    target = copied("act_state", tmp_path)
    tensors = read_tensors(target / AFTER_NUMBERS)
    tensors["action.std"][2] = number
    write_tensors(target / AFTER_NUMBERS, tensors)
    assert "action.std: expected finite numbers" in refusal(target)


def test_statistics_of_another_width_are_refused(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    tensors = read_tensors(target / AFTER_NUMBERS)
    tensors["action.mean"] = np.zeros(7, np.float32)
    write_tensors(target / AFTER_NUMBERS, tensors)
    assert "action.mean: expected 6 numbers" in refusal(target)


def test_legacy_buffers_are_found_by_the_features_names() -> None:
    statistics = read_legacy(folder("act_legacy_033"))
    assert list(statistics.features) == ["observation.state"]
    assert statistics.action is not None


@pytest.mark.parametrize("absent", ["unnormalize_outputs.", "normalize_targets."])
def test_either_place_of_the_actions_buffers_may_be_absent(tmp_path: Path, absent: str) -> None:
    target = copied("act_legacy_033", tmp_path)
    renamed(target / WEIGHTS, absent, None)
    assert read_legacy(target).action is not None


def test_legacy_buffers_that_are_missing_or_of_no_feature_are_refused(tmp_path: Path) -> None:
    target = copied("act_legacy_033", tmp_path / "a")
    for place in ("unnormalize_outputs.", "normalize_targets."):
        renamed(target / WEIGHTS, place, None)
    assert refusal(target, legacy=True).endswith("actions would be sent un-normalised")
    target = copied("act_legacy_033", tmp_path / "b")
    renamed(target / WEIGHTS, "buffer_action", "so100_buffer_action")
    told = refusal(target, legacy=True)
    assert "so100_buffer_action.mean" in told
    assert "are the statistics of no feature" in told


def test_a_legacy_mapping_of_identity_needs_no_buffers(tmp_path: Path) -> None:
    target = copied("act_legacy_033", tmp_path)
    edit(target / "config.json", normalization_mapping={"STATE": "IDENTITY", "ACTION": "IDENTITY"})
    statistics = read_legacy(target)
    assert (statistics.features, statistics.action) == ({}, None)
