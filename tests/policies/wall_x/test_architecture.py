"""What config.json and the train config say about a network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.wall_x.architecture import Expert, read_architecture
from tests.shared import shared_path

CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": 1,
    "image_token_id": 2,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "experts": [{"intermediate_size": 96}, {"intermediate_size": 32}],
    "dim_inputs": [64, 64],
    "dof_config": {"arm": 6, "gripper": 1},
    "agent_pos_config": {"arm": 6, "gripper": 2},
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    },
}


def write_config(directory: Path, **changes: Any) -> Path:
    (directory / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (directory / "added_tokens.json").write_text(json.dumps({"<|propri|>": 3, "<|action|>": 4}))
    return directory


def test_a_config_without_the_optional_fields_is_the_released_kind_of_model(tmp_path: Path) -> None:
    architecture = read_architecture(write_config(tmp_path))
    assert (architecture.action_dim, architecture.state_dim, architecture.head_dim) == (7, 8, 16)
    assert (architecture.action_hidden, architecture.state_hidden) == (64, 64)
    assert (architecture.state_id, architecture.action_id) == (3, 4)
    assert not architecture.has_attention_experts
    assert not architecture.is_action_attention_causal
    assert architecture.vision.window_cells == 4


def test_a_train_config_overrides_dimensions(tmp_path: Path) -> None:
    train = {"dof_config": {"all": 14}, "data": {"causal_action_attention_mask": True}, "batch_size": 3}
    architecture = read_architecture(write_config(tmp_path), train)
    assert architecture.action_dim == 14
    assert architecture.state_dim == 8
    assert architecture.is_action_attention_causal


def test_the_golden_mot_checkpoint_has_experts_of_two_widths() -> None:
    architecture = read_architecture(shared_path("wall_x", "golden", "checkpoint_flow_mot"))
    assert architecture.experts == (Expert(128, 256), Expert(64, 64))
    assert architecture.has_attention_experts
    assert architecture.has_norm_experts
    assert (architecture.action_hidden, architecture.state_hidden) == (64, 128)


def test_special_tokens_are_found_in_tokenizer_json_too(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "added_tokens.json").unlink()
    tokens = [{"id": 8, "content": "<|propri|>"}, {"id": 9, "content": "<|action|>"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    architecture = read_architecture(tmp_path)
    assert (architecture.state_id, architecture.action_id) == (8, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "64"}, 'hidden_size: expected a positive integer, got "64"'),
        ({"num_attention_heads": 5}, "num_attention_heads: expected a divisor of hidden_size = 64, got 5"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of num_attention_heads = 4, got 3"),
        (
            {"rope_scaling": {"mrope_section": [2, 3, 4]}},
            "rope_scaling: mrope_section: expected three numbers of sum 8",
        ),
        ({"rope_scaling": None}, "rope_scaling: expected an object, got null"),
        ({"experts": []}, "experts: expected two objects, for text and for actions, got []"),
        ({"dim_inputs": [64, 65]}, "dim_inputs: expected two numbers of 1 … hidden_size = 64, got [64, 65]"),
        ({"dof_config": {}}, "dof_config: expected names with their positive numbers of values, got {}"),
        ({"action_hidden_size": 128}, "action_hidden_size: expected an even number of at most hidden_size = 64"),
        ({"attention_moe": 1}, "attention_moe: expected true or false, got 1"),
        ({"use_adarms": True}, "use_adarms: expected false, got true"),
        ({"mlp_moe": False}, "mlp_moe: expected true, got false"),
        ({"rms_norm_eps": 0}, "rms_norm_eps: expected a positive number, got 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps: expected a positive number, got NaN"),
        ({"rope_theta": float("inf")}, "rope_theta: expected at most 2147483648, got Infinity"),
        ({"rope_theta": 10**400}, "rope_theta: expected at most 2147483648, got 1000"),
        ({"hidden_size": 10**30}, "hidden_size: expected at most 2147483648, got 1000"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers: expected at most 10000, got 1000000"),
        (
            {"vision_config": {**CONFIG["vision_config"], "out_hidden_size": 32}},
            "vision_config: out_hidden_size: expected the decoder's hidden_size = 64, got 32",
        ),
    ],
)
def test_an_error_names_the_file_and_the_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_config(tmp_path, **changes)
    with pytest.raises(ConfigError, match=re.escape(f"config.json: {message}")):
        read_architecture(tmp_path)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=re.escape("config.json: hidden_size is missing")):
        read_architecture(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    write_config(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: expected a JSON"):
        read_architecture(tmp_path)


def test_a_directory_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_path must be a checkpoint directory"):
        read_architecture(tmp_path)


def test_a_tokenizer_without_the_special_tokens_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "added_tokens.json").write_text("{}")
    with pytest.raises(ConfigError, match=re.escape("expected the tokens <|propri|> and <|action|>")):
        read_architecture(tmp_path)
