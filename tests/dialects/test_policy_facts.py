"""What greetings say of a policy: what it declares, else what follows from its spec."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.dialects.policy_facts import action_size, chunk_size, image_size, roboarena_facts


def told(cameras: dict[str, ImageSpec], size: int = 8, horizon: int | None = 4, **metadata: Any) -> dict[str, Any]:
    spec = PolicySpec("arm", {**cameras, "state": ArraySpec((7,))}, ArraySpec((size,)), horizon=horizon)
    return {"spec": spec.describe(), **metadata}


OPEN: dict[str, Any] = {"spec": PolicySpec("open", None, None).describe()}
DEFAULTS = {
    "image_resolution": [224, 224],
    "needs_wrist_camera": True,
    "n_external_cameras": 1,
    "needs_stereo_camera": False,
    "needs_session_id": True,
    "action_space": "joint_position",
}
SMALL = ImageSpec(180, 320)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing known": (OPEN, {}),
    "no picture": (told({}), {"image_resolution": None, "needs_wrist_camera": False, "n_external_cameras": 0}),
    "a wrist": (told({"images/wrist": SMALL}), {"image_resolution": [180, 320], "n_external_cameras": 0}),
    "two views": (
        told({"observation/exterior_image_1_left": SMALL, "observation/exterior_image_2_left": SMALL}),
        {"image_resolution": [180, 320], "needs_wrist_camera": False, "n_external_cameras": 2},
    ),
    "a pair of eyes": (
        told({"observation/exterior_image_0_left": SMALL, "observation/exterior_image_0_right": SMALL}),
        {"image_resolution": [180, 320], "needs_wrist_camera": False, "needs_stereo_camera": True},
    ),
    "three views of several sizes": (
        told({"a": SMALL, "b": ImageSpec(), "c": ImageSpec(224, 224)}),
        {"image_resolution": None, "needs_wrist_camera": False, "n_external_cameras": 2},
    ),
    "a pose and a gripper": (
        told({}, 7),
        {
            "image_resolution": None,
            "needs_wrist_camera": False,
            "n_external_cameras": 0,
            "action_space": "cartesian_position",
        },
    ),
    "what the policy says": (
        {**OPEN, "needs_session_id": False, "action_space": "joint_velocity", "image_resolution": None},
        {"needs_session_id": False, "action_space": "joint_velocity", "image_resolution": None},
    ),
    "other facts of these names": (
        {**OPEN, "needs_session_id": "no", "action_space": "Box(7,)", "n_external_cameras": 3, "image_resolution": [1]},
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_roboarenas_keys_follow_from_the_spec_unless_the_policy_says_them(case: str) -> None:
    metadata, differing = CASES[case]
    found = roboarena_facts(metadata)
    assert found == {**DEFAULTS, **differing}
    assert list(found) == list(DEFAULTS)


@pytest.mark.parametrize(
    ("metadata", "steps"),
    [
        (OPEN, 1),
        ({}, 1),
        ({**OPEN, "pred_horizon": 50}, 50),
        (told({}, horizon=None), 1),
        (told({}), 4),
        (told({}, action_chunk_size=2), 2),
        (told({}, action_chunk_size="2"), 4),
    ],
)
def test_a_chunk_has_as_many_rows_as_somebody_knows(metadata: dict[str, Any], steps: int) -> None:
    assert chunk_size(metadata) == steps


def test_sizes_are_told_where_they_are_known() -> None:
    assert (action_size(told({})), action_size(OPEN), action_size({**OPEN, "action_dim": 7})) == (8, None, 7)
    assert (image_size(told({"a": SMALL})), image_size(told({})), image_size(OPEN)) == ([180, 320], None, None)
