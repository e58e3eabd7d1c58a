"""Which of a client's keys is which of a policy's: by what the user says, by names, by order, and never by a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation, ConfigError
from policyserve.core.mapping import Fitted, KeyMap
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects import by_name

PICTURE = np.zeros((4, 4, 3), np.uint8)


def spec(*names: str, **leaves: Any) -> PolicySpec:
    """names: its pictures."""
    pictures = {name: ImageSpec() for name in names}
    return PolicySpec("fitted", {**pictures, **leaves}, None)


def numbers(*values: float) -> Any:
    return np.asarray(values, np.float32)


def fitted(observation: Mapping[str, Any], to: PolicySpec, given: Mapping[str, str] | None = None) -> Any:
    fit = Fitted(given or {}, to, by_role=True)
    seen = to.validate(fit(observation)).observation
    return seen, [str(move) for move in fit.moves]


def told(observation: Mapping[str, Any], to: PolicySpec, given: Mapping[str, str] | None = None) -> list[str]:
    return fitted(observation, to, given)[1]


def test_what_has_the_specs_names_is_taken_as_it_is() -> None:
    to = spec("images/wrist", state=ArraySpec((2,)), prompt=TextSpec())
    assert told({"images": {"wrist": PICTURE}, "state": numbers(1, 2), "prompt": "go"}, to) == []


@pytest.mark.parametrize(
    ("cameras", "wanted", "moves"),
    [
        (["images/agentview", "images/wrist"], ["observation/image", "observation/wrist_image"],
         ["images/wrist as observation/wrist_image", "images/agentview as observation/image"]),
        (["images/left_wrist", "images/right_wrist", "images/head"], ["cam_head", "wrist_right", "wrist_left"],
         ["images/head as cam_head", "images/right_wrist as wrist_right", "images/left_wrist as wrist_left"]),
        (["images/rgb_static", "images/rgb_gripper"], ["image/primary", "image/hand"],
         ["images/rgb_static as image/primary", "images/rgb_gripper as image/hand"]),
        (["images/webcam"], ["video.front"], ["images/webcam as video.front"]),
        (["images/1", "images/0", "images/2"], ["b", "a"], ["images/0 as b", "images/1 as a"]),
        (["images/observation.images.top"], ["observation.images.top"],
         ["images/observation.images.top as observation.images.top"]),
    ],
)  # fmt: skip
def test_cameras_are_found_by_their_words_and_unnamed_ones_by_order(
    cameras: Sequence[str], wanted: Sequence[str], moves: Sequence[str]
) -> None:
    assert told(dict.fromkeys(cameras, PICTURE), spec(*wanted)) == moves


def test_two_cameras_that_have_nothing_in_common_with_the_specs_are_not_guessed_at() -> None:
    with pytest.raises(BadObservation) as caught:
        told({"images/left": PICTURE, "images/right": PICTURE}, spec("top", "bottom"))
    assert caught.value.path == "top"
    assert "--map" in str(caught.value)
    assert "=top" in str(caught.value)


def test_one_camera_that_could_be_either_of_two_is_not_guessed_at() -> None:
    with pytest.raises(BadObservation, match="--map images/wrist=wrist_"):
        told({"images/wrist": PICTURE}, spec("wrist_left", "wrist_right"))


def test_the_prompt_is_the_only_text_and_the_state_the_only_numbers() -> None:
    to = PolicySpec("fitted", {"task": TextSpec(), "observation": {"qpos": ArraySpec((2,))}}, None)
    seen, moves = fitted({"prompt": "go", "state": numbers(1, 2)}, to)
    assert moves == ["prompt as task", "state as observation/qpos"]
    assert seen["task"] == "go"
    assert seen["observation"]["qpos"].tolist() == [1, 2]


def test_parts_of_a_state_are_joined_in_their_order_and_a_vector_is_cut() -> None:
    to = spec(state=ArraySpec((3,)))
    seen, moves = fitted({"state": {"arm": numbers(1, 2), "gripper": numbers(3)}}, to)
    assert (seen["state"].tolist(), moves) == ([1, 2, 3], ["state/arm + state/gripper as state"])
    parts = PolicySpec("fitted", {"arm_position": ArraySpec((2,)), "gripper_position": ArraySpec((1,))}, None)
    seen, moves = fitted({"state": numbers(1, 2, 3)}, parts)
    assert seen["arm_position"].tolist() == [1, 2]
    assert seen["gripper_position"].tolist() == [3]
    assert moves == ["state[0:2] as arm_position", "state[2:3] as gripper_position"]
    with pytest.raises(BadObservation, match="--map state=arm_position"):
        told({"state": numbers(1, 2, 3, 4)}, parts)


def test_parts_of_the_same_name_meet_each_other() -> None:
    to = PolicySpec("fitted", {"state.arm": ArraySpec((2,)), "state.gripper": ArraySpec((1,))}, None)
    moves = told({"state/gripper": numbers(3), "state/arm": numbers(1, 2)}, to)
    assert sorted(moves) == ["state/arm as state.arm", "state/gripper as state.gripper"]


def test_parts_that_cannot_be_joined_are_told_by_their_shapes() -> None:
    with pytest.raises(BadObservation, match=r"state/b \(2, 2\)"):
        told({"state/a": numbers(1, 2), "state/b": np.zeros((2, 2), np.float32)}, spec(state=ArraySpec((4,))))


def test_what_the_user_says_comes_first() -> None:
    to = spec("front", "back", state=ArraySpec((1,)))
    given = {"images/1": "front", "images/0": "back"}
    moves = told({"images/0": PICTURE, "images/1": PICTURE, "state": numbers(1)}, to, given)
    assert moves == ["images/1 as front", "images/0 as back"]


def test_a_key_that_is_there_under_both_names_is_refused() -> None:
    with pytest.raises(BadObservation, match="two: x and state"):
        told({"x": numbers(1), "state": numbers(2)}, spec(x=ArraySpec((1,))), {"state": "x"})


def test_what_nothing_stands_for_is_missing_as_ever() -> None:
    with pytest.raises(BadObservation) as caught:
        told({"prompt": "go"}, spec("front", prompt=TextSpec()))
    assert caught.value.path == "front"


def test_optional_keys_may_be_missing() -> None:
    to = PolicySpec("fitted", {"a": ImageSpec(optional=True), "state": ArraySpec((1,))}, None)
    assert told({"state": numbers(1)}, to) == []


def test_a_plan_is_made_once_for_the_same_keys_and_anew_for_others() -> None:
    fit = Fitted({}, spec("front"), by_role=True)
    for name in ("images/cam", "images/0", "images/cam", *(f"images/{n}" for n in "abcdefghijk")):
        assert set(fit({name: PICTURE})) == {"front"}


@pytest.mark.parametrize(
    ("words", "told"),
    [(["a"], "client_key=policy_key"), (["a=b=c"], "client_key"), (["=b"], "client_key"), (["a=b", "a=c"], "twice")],
)
def test_a_map_that_cannot_be_read_is_told(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        KeyMap.read(words)


def test_a_map_to_a_key_that_the_policy_has_not_is_told_with_what_was_meant() -> None:
    to = spec("observation/image")
    with pytest.raises(ConfigError, match=r"did you mean observation/image\?"):
        KeyMap.read(["cam=observation/images"]).check(to)
    KeyMap.read(["cam=observation/image"]).check(to)
    KeyMap.read(["cam=anything"]).check(PolicySpec("open", None, None))


def test_the_founding_dialects_are_taken_as_they_are_unless_the_user_says_otherwise() -> None:
    to = spec("front")
    for name in ("openpi", "wall_x", "vibe_rl"):
        assert KeyMap({}).fit(by_name(name), to) is None
        assert KeyMap({"a": "front"}).fit(by_name(name), to) is not None
