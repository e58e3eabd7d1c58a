"""Every golden case of ONNX models: alone, in a batch, in sessions side by side, and over the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import policyserve
from policyserve import Client, PolicyInput
from policyserve.core.arrays import Array
from tests.policies.golden_episodes import check_over_the_wire, check_side_by_side, founding_actions, infer
from tests.policies.onnx.golden import (
    ALONE,
    ATOL,
    EPISODES,
    REFUSED,
    actions_of,
    arrays_of,
    model_of,
    observations,
    refused,
)

OF_ONE_ARRAY = ("dynamic_mlp", "isaaclab_mlp", "rsl_rl_external_data")  # which is what a client of vibe_rl sends


@pytest.mark.parametrize("case", ALONE)
def test_a_case_is_answered_as_by_its_own_library_alone_and_in_a_batch(case: str) -> None:
    arrays = arrays_of(case)
    policy = policyserve.load_policy(f"onnx:{model_of(case)}", threads=1)
    batch = [PolicyInput(one) for one in observations(arrays, policy.spec.leaves)]
    wanted = actions_of(arrays)
    for one, action in zip(batch, wanted, strict=True):
        np.testing.assert_allclose(infer(policy, one)[0].actions, action, rtol=0, atol=ATOL)
    together = np.stack([chunk.actions for chunk in infer(policy, *batch)])
    np.testing.assert_allclose(together, wanted, rtol=0, atol=ATOL)
    for one in batch:
        policy.spec.validate(one.observation)


@pytest.mark.parametrize("case", EPISODES)
def test_two_sessions_side_by_side_remember_what_each_alone_does(case: str) -> None:
    check_side_by_side(policyserve.load_policy(model_of(case)), arrays_of(case), ATOL)


@pytest.mark.parametrize("dialect", ["openpi", "vibe_rl"])
@pytest.mark.parametrize("case", EPISODES)
def test_sessions_over_the_wire_remember_and_a_reset_and_a_new_one_begin_anew(case: str, dialect: str) -> None:
    with policyserve.start(f"onnx:{model_of(case)}") as server:
        check_over_the_wire(f"{server.url}/{dialect}", dialect, arrays_of(case), ATOL)


@pytest.mark.parametrize(
    ("case", "dialect"), [*((case, "openpi") for case in ALONE), *((case, "vibe_rl") for case in OF_ONE_ARRAY)]
)
def test_a_case_is_answered_over_the_wire(case: str, dialect: str) -> None:
    arrays = arrays_of(case)
    with (
        policyserve.start(f"onnx:{model_of(case)}") as server,
        Client(f"{server.url}/{dialect}", dialect=dialect) as client,
    ):
        for one, action in zip(observations(arrays, server.spec.leaves), actions_of(arrays), strict=True):
            found: Array = client.infer(one).actions
            np.testing.assert_allclose(found, action, rtol=0, atol=ATOL)


@pytest.mark.parametrize("case", OF_ONE_ARRAY)
def test_the_founding_client_unmodified_is_answered(case: str, tmp_path: Path) -> None:
    arrays = arrays_of(case)
    with policyserve.start(f"onnx:{model_of(case)}") as server:
        found = founding_actions(urlsplit(server.url).port or 0, arrays["obs"], tmp_path)
    np.testing.assert_allclose(found, actions_of(arrays), rtol=0, atol=ATOL)


def test_a_picture_of_a_camera_becomes_the_models_input_where_a_flag_says_how() -> None:
    arrays = arrays_of("image_state_chunk")
    policy = policyserve.load_policy(model_of("image_state_chunk"), image="image=uint8:HWC/255")
    assert str(policy.spec.leaves["image"]) == "uint8 image HWC, 36 x 48"
    batch = [
        PolicyInput({"image": image, "state": state})
        for image, state in zip(arrays["image_hwc_uint8"], arrays["state"], strict=True)
    ]
    for found, wanted in zip(infer(policy, *batch), arrays["action_chunk"], strict=True):
        np.testing.assert_allclose(found.actions, wanted, rtol=0, atol=ATOL)


def test_the_extra_outputs_are_sent_where_they_are_asked_for() -> None:
    arrays = arrays_of("mjlab_tracking")
    policy = policyserve.load_policy(model_of("mjlab_tracking"), extras="all")
    batch = [PolicyInput(one) for one in observations(arrays, policy.spec.leaves)]
    for row, chunk in enumerate(infer(policy, *batch)):
        np.testing.assert_allclose(chunk.extras["joint_pos"], arrays["joint_pos"][row], rtol=0, atol=ATOL)
        np.testing.assert_allclose(chunk.extras["joint_vel"], arrays["joint_vel"][row], rtol=0, atol=ATOL)


def test_the_step_of_a_motion_is_counted_for_each_session_where_it_is_not_sent() -> None:
    arrays = arrays_of("mjlab_tracking")
    policy = policyserve.load_policy(model_of("mjlab_tracking"))
    obs = arrays["obs"][0]
    sent = [infer(policy, PolicyInput({"obs": obs, "time_step": np.full(1, step, "float32")}))[0] for step in range(4)]
    states: list[Any] = [None, None]
    for step in range(3):
        chunks = infer(policy, *[PolicyInput({"obs": obs}, state=state) for state in states])
        for chunk in chunks:
            np.testing.assert_array_equal(chunk.actions, sent[step].actions)
        states = [chunk.state for chunk in chunks]
    (later,) = infer(policy, PolicyInput({"obs": obs}, state=states[0]))
    np.testing.assert_array_equal(later.actions, sent[3].actions)


SPECS: dict[str, tuple[dict[str, str], str, int | None]] = {
    "dynamic_mlp": ({"obs": "float32 (8,)"}, "float32 (3,)", None),
    "image_state_chunk": ({"image": "float32 (3, 36, 48)", "state": "float32 (5,)"}, "float32 (3,)", 4),
    "isaaclab_mlp": ({"obs": "float32 (45,)"}, "float32 (12,)", None),
    "mjlab_tracking": ({"obs": "float32 (12,)", "time_step": "float32 (1,)"}, "float32 (4,)", None),
    "rsl_rl_cnn_dynamo": ({"obs": "float32 (5,)", "camera": "float32 (3, 36, 48)"}, "float32 (3,)", None),
    "rsl_rl_external_data": ({"obs": "float32 (45,)"}, "float32 (12,)", None),
    "rsl_rl_gru": ({"obs": "float32 (10,)"}, "float32 (4,)", None),
    "rsl_rl_lstm": ({"obs": "float32 (10,)"}, "float32 (4,)", None),
}


@pytest.mark.parametrize("case", SPECS)
def test_the_spec_is_derived_from_the_file(case: str) -> None:
    spec = policyserve.load_policy(model_of(case)).spec
    found = {path: str(leaf) for path, leaf in spec.leaves.items()}
    assert (found, str(spec.action), spec.horizon) == SPECS[case]
    assert (spec.max_batch, spec.max_client_batch) == (64, 0 if case in (*EPISODES, "mjlab_tracking") else 1024)
    assert spec.metadata["backend"] == "onnxruntime"


def test_what_mjlab_says_of_the_robot_is_in_the_metadata_and_the_docs() -> None:
    spec = policyserve.load_policy(model_of("isaaclab_mlp")).spec
    assert spec.metadata["joint_names"][0] == "FL_hip_joint"
    assert spec.metadata["default_joint_pos"][:3] == [0.1, 0.8, -1.5]
    assert spec.metadata["run_path"] == "team/velocity/abc123"
    assert spec.action is not None
    assert "joint targets are default_joint_pos + action_scale * action" in spec.action.doc
    assert spec.leaves["obs"].doc.startswith("base_ang_vel, projected_gravity")


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_to_refuse_is_refused_in_one_line(name: str) -> None:
    path = refused(name)
    with pytest.raises(policyserve.ConfigError) as raised:
        policyserve.load_policy(f"onnx:{path}")
    assert str(raised.value).startswith(f"{path}: {REFUSED[name]}")
    assert "\n" not in str(raised.value)


def test_of_two_outputs_the_flag_says_which_is_the_action() -> None:
    policy = policyserve.load_policy(str(refused("two_outputs")), action="right_arm")
    assert str(policy.spec.action) == "float32 (2,)"
