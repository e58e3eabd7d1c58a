"""Scales of states and actions: the originals' numbers out of every file that holds them."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation, ConfigError
from policyserve.policies.wall_x.norm_files import load_normalizer, read_stats_json
from policyserve.policies.wall_x.normalizer import Normalizer, Scale
from policyserve.policies.wall_x.train_config import TrainConfig, read_train_config
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import facts, golden, tensors

torch = import_or_skip("torch")
import_or_skip("yaml")


def of_checkpoint(name: str, **options: Any) -> Normalizer:
    return load_normalizer(golden(name), read_train_config(golden(name, "config.yml")), **options)


def test_states_are_scaled_and_actions_scaled_back_as_the_original_does() -> None:
    arrays, names = tensors("unit_normalizer_actionhead"), facts("unit_normalizer_actionhead")["dataset_names"]
    normalizer = of_checkpoint("checkpoint_flow")
    for row, name in enumerate(names):
        action, state = normalizer.action[name], normalizer.state[name]
        np.testing.assert_array_equal(state.normalise(arrays["propri_in"][row]), arrays["propri_norm"][row])
        np.testing.assert_array_equal(action.unnormalise(arrays["action_in"][row]), arrays["action_unnorm"][row])
        seven = action.unnormalise(arrays["action7_in"][row])
        np.testing.assert_allclose(seven, arrays["action7_unnorm"][row], rtol=1e-15, atol=1e-15)
        assert seven.dtype == np.float64


def test_what_is_scaled_without_clamping_comes_back_from_unnormalise() -> None:
    names = facts("unit_normalizer_actionhead")["dataset_names"]
    normalizer, random = of_checkpoint("checkpoint_flow"), np.random.default_rng(0)
    for scale in (normalizer.action[name] for name in names):
        wide = (random.standard_normal((16, scale.low.size)) * 1.1).astype(np.float32)
        moving = scale.width != 0
        back = scale.normalise_unclamped(scale.unnormalise(wide))
        np.testing.assert_allclose(back[:, moving], wide[:, moving], atol=2e-5)
        assert not back[:, ~moving].any()
        assert np.abs(back).max() > 1
    mean_std = Scale(np.zeros(3, np.float32), np.array([2, 0, 1], np.float32), is_mean_std=True)
    np.testing.assert_array_equal(mean_std.normalise_unclamped(np.array([8.0, 8.0])), [4, 0])


@pytest.mark.parametrize("name", ["checkpoint_flow", "checkpoint_fast", "checkpoint_flow_aloha", "checkpoint_flow_mot"])
def test_a_pth_file_holds_what_its_safetensors_copy_holds(name: str) -> None:
    load_file = import_or_skip("safetensors.numpy").load_file
    normalizer = of_checkpoint(name)
    for scales, part in ((normalizer.action, "action"), (normalizer.state, "propri")):
        copy = load_file(golden(name, f"normalizer_{part}.golden_copy.st"))
        assert {f"min.{name}" for name in scales} == {key for key in copy if key.startswith("min.")}
        for dataset, scale in scales.items():
            np.testing.assert_array_equal(scale.low, copy[f"min.{dataset}"])
            np.testing.assert_array_equal(scale.width, copy[f"delta.{dataset}"])


@pytest.mark.parametrize("name", ["checkpoint_flow_libero", "checkpoint_flow_mot", "checkpoint_flow_aloha"])
def test_the_json_of_one_robot_gives_the_scales_of_the_pth_files(name: str) -> None:
    train_config = read_train_config(golden(name, "config.yml"))
    assert train_config.norm_stats_path is not None
    from_json, from_pth = read_stats_json(train_config.norm_stats_path, train_config), of_checkpoint(name)
    (dataset,) = from_json.names
    for ours, theirs in ((from_json.action, from_pth.action), (from_json.state, from_pth.state)):
        np.testing.assert_allclose(ours[dataset].low, theirs[dataset].low, atol=1e-7)
        np.testing.assert_allclose(ours[dataset].width, theirs[dataset].width, atol=1e-6)


def test_mean_and_deviation_come_from_the_json_and_are_not_clamped() -> None:
    normalizer = of_checkpoint("checkpoint_flow_libero", mean_std=True)
    scale = normalizer.action["physical-intelligence/libero"]
    far = scale.low + 3 * scale.width
    np.testing.assert_allclose(scale.normalise(far), np.full(7, 3), rtol=1e-5)
    np.testing.assert_allclose(scale.unnormalise(np.full((2, 7), 3)), np.stack([far, far]), rtol=1e-5)


def test_the_json_of_many_robots_is_joined_in_the_train_configs_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = {"min": [0, 1], "delta": [2, 2], "q01": [-1, -1], "delta_q99_q01": [4, 4]}
    robot = {"arm": part, "gripper": {"min": [5], "delta": [1], "q01": [6], "delta_q99_q01": [0.5]}}
    path = tmp_path / "stats.json"
    path.write_text(json.dumps({"x": robot, "other": {"legs": part}}), encoding="utf-8")
    config = TrainConfig(path, {}, dof=(("gripper", 1), ("arm", 2)), agent_pos=(("arm", 2), ("head", 1)))
    normalizer = read_stats_json(path, config)
    assert normalizer.names == ("x",)
    assert normalizer.action["x"].low.tolist() == [5, 0, 1]
    assert normalizer.state["x"].width.tolist() == [2, 2, 1]
    assert "no statistics of head" in caplog.text
    quantiles = read_stats_json(path, replace(config, min_key="q01", delta_key="delta_q99_q01"))
    assert quantiles.action["x"].low.tolist() == [6, -1, -1]
    assert quantiles.action["x"].width.tolist() == [0.5, 4, 4]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "expected statistics as JSON"),
        ("[1]", "a map of maps"),
        ('{"norm_stats": {"state": {}}}', "q01 is missing, got nothing"),
        ('{"norm_stats": {"state": {"mean": [0], "std": [1], "q01": null}}}', "state: q01 is missing, got mean, std"),
        (
            '{"norm_stats": {"state": {"q01": [0, 3], "q99": [1, 1]}}}',
            "state: expected widths, .* 0 or more, got -2 at 1",
        ),
        ('{"x": {"arm": {"min": [0, 0], "delta": [-1, 1]}}}', "x: expected widths, .* 0 or more, got -1 at 0"),
        ('{"norm_stats": {"pos": {}}}', "expected state or observation.state, got pos"),
        ('{"norm_stats": {"state": {"q01": [0], "q99": [1, 2]}}}', "two lists of the same length"),
        ('{"norm_stats": {"state": {"q01": ["a"], "q99": [1]}}}', "expected numbers"),
        ('{"norm_stats": {"state": {"q01": [0], "q99": [NaN]}}}', "finite"),
        ("{}", "expected robots with arm, got nothing"),
        ('{"x": {"arm": {"min": [0, 0, 0], "delta": [1, 1, 1]}}}', "x: arm: expected 2 numbers, got 3"),
    ],
)
def test_broken_statistics_are_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "stats.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"stats.json: .*{reason}"):
        read_stats_json(path, TrainConfig(path, {}, dof=(("arm", 2),)))


def test_a_negative_deviation_is_refused_and_one_of_zero_is_not(tmp_path: Path) -> None:
    path, config = tmp_path / "stats.json", TrainConfig(tmp_path / "config.yml", {})
    entry = {"mean": [0, 0, 0], "std": [1, 0, -0.5]}
    path.write_text(json.dumps({"norm_stats": {"state": entry, "actions": entry}}), encoding="utf-8")
    message = "stats.json: norm_stats: state: expected standard deviations of 0 or more, got -0.5 at 2"
    with pytest.raises(ConfigError, match=message):
        read_stats_json(path, config, mean_std=True)
    entry["std"] = [1, 0, 0.5]
    path.write_text(json.dumps({"norm_stats": {"state": entry, "actions": entry}}), encoding="utf-8")
    assert read_stats_json(path, config, mean_std=True).state["default"].width.tolist() == [1, 0, 0.5]


def test_a_pth_file_of_negative_widths_is_refused(tmp_path: Path) -> None:
    for name in ("normalizer_action.pth", "normalizer_propri.pth"):
        torch.save({"min.x": torch.zeros(2), "delta.x": torch.tensor([1.0, -1.0])}, tmp_path / name)
    with pytest.raises(ConfigError, match=r"normalizer_action.pth: x: expected widths, .* 0 or more, got -1 at 1"):
        load_normalizer(tmp_path, TrainConfig(tmp_path / "config.yml", {}))


def test_a_pth_file_that_could_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("ran",))

    for name in ("normalizer_action.pth", "normalizer_propri.pth"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ConfigError, match=r"normalizer_action.pth: expected torch tensors"):
        load_normalizer(tmp_path, TrainConfig(tmp_path / "config.yml", {}))


def test_a_pth_file_without_deltas_is_named(tmp_path: Path) -> None:
    for name in ("normalizer_action.pth", "normalizer_propri.pth"):
        torch.save({"min.x": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(ConfigError, match=r"expected min.NAME and delta.NAME, got min.x"):
        load_normalizer(tmp_path, TrainConfig(tmp_path / "config.yml", {}))


def test_a_checkpoint_without_statistics_is_an_error(tmp_path: Path) -> None:
    config = TrainConfig(tmp_path / "config.yml", {})
    with pytest.raises(ConfigError, match=r"no statistics: expected normalizer_action.pth"):
        load_normalizer(tmp_path, config)
    with pytest.raises(ConfigError, match=r"norm_stats_path: .*stats.json does not exist"):
        load_normalizer(tmp_path, replace(config, norm_stats_path=tmp_path / "there" / "stats.json"))


def test_a_constant_dimension_scales_to_nothing_but_zero_or_a_bound() -> None:
    scale = Scale(np.zeros(3, np.float32), np.zeros(3, np.float32))
    assert scale.normalise(np.array([-1, 0, 1], np.float32)).tolist() == [-1, 0, 1]


def test_no_tensor_outlives_the_reading_of_its_file() -> None:
    normalizer = of_checkpoint("checkpoint_flow")
    scales = [*normalizer.action.values(), *normalizer.state.values()]
    assert all(array.base is None for one in scales for array in (one.low, one.width))


def scale(size: int) -> Scale:
    return Scale(np.zeros(size, np.float32), np.ones(size, np.float32))


def test_a_data_set_is_chosen_by_name_or_because_it_is_the_only_one() -> None:
    one, two = Normalizer({"a": scale(1)}, {}), Normalizer({"a": scale(1), "b": scale(1)}, {})
    assert [one.choose(names) for names in ("a", ["a"], None, [])] == ["a"] * 4
    assert two.choose(["b"]) == "b"
    for names, got in ((None, "none"), (["a", "b"], "2 names"), ("c", "'c'"), ([""], "''")):
        with pytest.raises(BadObservation, match=f"dataset_names: expected one of a, b, got {got}"):
            two.choose(names)


def test_data_sets_of_other_widths_cannot_be_chosen() -> None:
    both = Normalizer({"a": scale(7), "b": scale(14)}, {"a": scale(8)})
    assert both.fitting(range(7, 8)).names == ("a",)
    assert both.fitting(range(7, 21)).names == ("a", "b")
    assert both.fitting(range(7, 21), range(8, 9)).names == ("a",)
    told = (
        r"expected actions of 7 … 20 and states of 9 numbers, got a of 7, b of 14; .*--env, --model-config.action-dim"
    )
    with pytest.raises(ConfigError, match=told):
        both.fitting(range(7, 21), range(9, 10))
