"""Wall-X's configuration, its spec, the stand-in for its model, and WallXPolicy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.compat.wall_x import MODEL_CONFIGS, ModelConfig
from policyserve.core.errors import BadObservation, ConfigError
from policyserve.policies.wall_x import load_policy, wall_x_spec
from tests.compat.test_wall_x_client import libero_policy, observation


def test_alohas_configuration_has_two_arms_and_three_cameras() -> None:
    aloha = MODEL_CONFIGS["aloha"]
    assert (aloha.state_dim, aloha.action_dim, aloha.pred_horizon) == (14, 14, 32)
    assert aloha.camera_key == ["face_view", "left_wrist_view", "right_wrist_view"]


@pytest.mark.parametrize(
    ("camera_key", "reason"),
    [
        ([], "at least one key"),
        ([""], "got ''"),
        (["/"], "got '/'"),
        (["front_view", "state"], "got 'state'"),
        (["a", "b", "a"], "got a twice"),
    ],
)
def test_camera_keys_that_cannot_be_are_refused(camera_key: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"camera_key: expected .*{reason}"):
        ModelConfig(camera_key=camera_key)


@pytest.mark.parametrize("sizes", [{"state_dim": 0}, {"action_dim": -1}, {"pred_horizon": 0}])
def test_sizes_are_at_least_one(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(sizes))}: expected 1 or more"):
        ModelConfig(**sizes)


def test_one_camera_may_be_given_as_a_text() -> None:
    assert next(iter(libero_policy(camera_key="front_view").batched.spec.leaves)) == "front_view"


def test_the_spec_has_the_cameras_in_their_order_and_what_the_greeting_tells() -> None:
    spec = wall_x_spec(ModelConfig(camera_key=["b", "a"], predict_mode="diffusion", device="cpu"), env="libero")
    assert list(spec.leaves) == ["b", "a", "prompt", "state", "dataset_names"]
    assert spec.metadata == {
        "action_dim": 7,
        "pred_horizon": 32,
        "device": "cpu",
        "predict_mode": "diffusion",
        "env": "libero",
    }


@pytest.mark.parametrize("shape", [(5, 6, 3), (3, 5, 6), (5, 6), (1, 5, 6, 3), (1, 3, 5, 6)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_an_image_comes_in_every_layout_that_the_original_takes(shape: tuple[int, ...], dtype: str) -> None:
    answer = libero_policy().infer(observation(front_view=np.zeros(shape, dtype)))
    assert answer["action"].shape == (32, 7)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("front_view", np.zeros((5, 6, 4), np.uint8)),
        ("front_view", np.zeros((5, 6, 3), np.int32)),
        ("front_view", np.zeros((0, 6, 3), np.uint8)),
        ("state", np.zeros(7, np.float32)),
        ("prompt", b"open"),
        ("dataset_names", 3),
    ],
)
def test_what_is_no_observation_is_refused_with_its_path(key: str, value: Any) -> None:
    with pytest.raises(BadObservation, match=key):
        libero_policy().infer(observation(**{key: value}))


def test_a_prompt_is_needed_unless_there_is_a_default() -> None:
    without = {key: value for key, value in observation().items() if key != "prompt"}
    with pytest.raises(BadObservation, match="prompt"):
        libero_policy().infer(without)
    answer = libero_policy(default_prompt="open the drawer").infer(without)["action"]
    np.testing.assert_array_equal(answer, libero_policy().infer(observation())["action"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("front_view", np.full((48, 64, 3), 101, np.uint8)),
        ("left_wrist_view", np.full((48, 64, 3), 31, np.uint8)),
        ("prompt", "close the drawer"),
        ("state", np.linspace(-1, 0.9, 8)),
    ],
)
def test_the_stand_ins_answer_depends_on_every_part_of_the_observation(key: str, value: Any) -> None:
    policy = libero_policy()
    usual, other = (policy.infer(observation(**changes))["action"] for changes in ({}, {key: value}))
    assert not np.array_equal(usual, other)
    assert np.abs(other).max() <= 1


def test_the_stand_in_says_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    policy = libero_policy()
    assert "control nothing" in policy.metadata["stand_in"]
    assert policy.metadata["predict_mode"] == "fast"
    assert "stand-in" in caplog.text
    policy.reset()


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="action_tokenizer_path: /nowhere does not exist"):
        load_policy(ModelConfig(model_path=str(tmp_path), action_tokenizer_path="/nowhere"))
