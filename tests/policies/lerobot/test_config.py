"""config.json: what is read of it, and each thing in it that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.config import ActConfig, DiffusionConfig, read_config
from tests.policies.lerobot.cases import copied, edit, folder


def refusal(case: str, place: Path, **changes: Any) -> str:
    target = copied(case, place)
    edit(target / "config.json", **changes)
    with pytest.raises(ConfigError) as refused:
        read_config(target)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_acts_sizes_are_read() -> None:
    config = read_config(folder("act_two_cameras"))
    assert isinstance(config.network, ActConfig)
    assert (config.kind, config.n_obs_steps, config.network.chunk_size) == ("act", 1, 10)
    assert [one.name for one in config.images] == ["observation.images.top", "observation.images.wrist"]
    assert config.state is not None
    assert (config.state.shape, config.environment, config.action.shape) == ((7,), None, (7,))


def test_diffusions_sizes_are_read() -> None:
    config = read_config(folder("diffusion_image_ddpm"))
    assert isinstance(config.network, DiffusionConfig)
    assert (config.network.crop, config.network.widths) == ((40, 40), (16, 32))
    schedule = config.network.schedule
    assert schedule.inference_steps == schedule.train_steps == 6, "null asks the network at every step of the training"


def test_a_negative_coefficient_of_ensembling_is_one(tmp_path: Path) -> None:
    target = copied("act_ensemble", tmp_path)
    edit(target / "config.json", temporal_ensemble_coeff=-0.01)
    network = read_config(target).network
    assert network is not None
    assert network.ensemble == -0.01


@pytest.mark.parametrize(
    ("case", "changes", "told"),
    [
        ("act_state", {"type": None}, "type: expected a text, got null"),
        ("act_state", {"use_peft": True}, "use_peft: the weights are an adapter"),
        ("act_state", {"chunk_size": 10**12}, "chunk_size: expected at most 4096"),
        ("act_state", {"chunk_size": "8"}, 'chunk_size: expected a positive integer, got "8"'),
        ("act_state", {"n_action_steps": 9}, "n_action_steps: expected at most 8, got 9"),
        ("act_state", {"n_obs_steps": 2}, "n_obs_steps: expected 1, as ACT has it, got 2"),
        ("act_state", {"n_heads": 5}, "n_heads: expected a divisor of dim_model = 32, got 5"),
        ("act_state", {"feedforward_activation": "glu"}, "expected relu or gelu"),
        ("act_state", {"vision_backbone": "os.system"}, "vision_backbone: expected resnet18 or"),
        ("act_state", {"replace_final_stride_with_dilation": True}, "resnet18 has no dilation"),
        ("act_state", {"temporal_ensemble_coeff": 0.01}, "n_action_steps: expected 1 with temporal_ensemble_coeff"),
        ("act_state", {"temporal_ensemble_coeff": float("inf")}, "temporal_ensemble_coeff: expected a finite number"),
        ("act_state", {"normalization_mapping": {"STATE": "SQUARE"}}, "STATE: expected IDENTITY or"),
        ("act_state", {"input_features": {}}, "expected observation.state, which act needs"),
        ("act_state", {"input_features": [1]}, "input_features: expected an object"),
        ("act_state", {"output_features": {}}, "expected one ACTION of one dimension, got none"),
        (
            "act_state",
            {"input_features": {"observation.state": {"type": "STATE", "shape": [6]}}},
            "expected an image or an environment's state",
        ),
        (
            "act_state",
            {"input_features": {"observation.image": {"type": "VISUAL", "shape": [1, 10**9, 2]}}},
            "shape: expected 3 channels",
        ),
        ("diffusion_state_ddim", {"horizon": 7}, "horizon: expected a multiple of 2"),
        ("diffusion_state_ddim", {"n_action_steps": 8}, "n_action_steps: expected at most 7"),
        ("diffusion_state_ddim", {"n_groups": 5}, "n_groups: expected a divisor of each of down_dims"),
        ("diffusion_state_ddim", {"down_dims": [12, 24]}, "a first number that 8 divides"),
        ("diffusion_state_ddim", {"down_dims": []}, "down_dims: expected 1 … 16 positive numbers"),
        ("diffusion_state_ddim", {"kernel_size": 4}, "kernel_size: expected an odd number"),
        ("diffusion_state_ddim", {"prediction_type": "v_prediction"}, "expected epsilon or sample"),
        ("diffusion_state_ddim", {"num_inference_steps": 51}, "num_inference_steps: expected at most 50"),
        ("diffusion_image_ddpm", {"crop_shape": [64, 40]}, "crop_shape: expected at most 48 x 48, the image"),
        ("diffusion_image_ddpm", {"crop_shape": None, "crop_ratio": 0.9}, "crop_ratio: expected 1"),
    ],
)
def test_what_no_network_can_be_is_refused(case: str, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in refusal(case, tmp_path, **changes)


def test_a_field_that_is_missing_is_not_guessed(tmp_path: Path) -> None:
    target = copied("diffusion_state_ddim", tmp_path)
    text = (target / "config.json").read_text().replace('"horizon"', '"horizons"')
    (target / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="horizon is missing"):
        read_config(target)


def test_a_form_from_before_is_refused_with_lerobots_migration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"input_shapes": {}, "output_shapes": {}}')
    with pytest.raises(ConfigError, match=r"migrate_policy_normalization"):
        read_config(tmp_path)
