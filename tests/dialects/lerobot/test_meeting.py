"""A robot's features and a policy's spec, before the first observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation, WireError
from policyserve.core.mapping import KeyMap
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.lerobot.dialect import LeRobot
from policyserve.dialects.lerobot.meeting import check_features, policy_of
from policyserve.dialects.lerobot.setup import read_setup
from tests.dialects.lerobot.written import features, setup

PICTURE = ImageSpec(2, 3)
OURS = {"state": ArraySpec((3,)), "images/top": PICTURE, "prompt": TextSpec()}
LEROBOTS = {"observation.state": ArraySpec((3,)), "observation.images.top": PICTURE, "task": TextSpec()}
NESTED = {"observation": {"state": ArraySpec((3,)), "images": {"top": PICTURE}}, "prompt": TextSpec()}


def spec_of(observation: Any, action: ArraySpec | None = None) -> PolicySpec:
    return PolicySpec("lerobot act", observation, action or ArraySpec((3,)), horizon=2)


def check(spec: PolicySpec, told: Any, *given: str) -> None:
    made = read_setup(setup("lerobot act", told))
    check_features(made, spec, KeyMap.read(given).fit(LeRobot(made), spec))


@pytest.mark.parametrize("observation", [OURS, LEROBOTS, NESTED])
def test_a_robot_meets_policies_by_their_own_names_or_lerobots(observation: Any) -> None:
    spec = spec_of(observation)
    check(spec, features(top=(2, 3, 3)))
    fitting = KeyMap({}).fit(LeRobot(), spec)
    assert fitting is not None
    sent = {"state": np.zeros(3, np.float32), "images/top": np.zeros((2, 3, 3), np.uint8), "prompt": "fold"}
    assert spec.validate(fitting(sent)).unknown == ()


def test_a_policy_of_one_array_knows_the_state_by_its_alias() -> None:
    spec = PolicySpec("p", {"obs": ArraySpec((3,))}, ArraySpec((3,)), aliases={"observation.state": "obs"})
    check(spec, features())


def test_a_policy_without_a_spec_takes_what_comes() -> None:
    check(PolicySpec("open", None, None), features())


TWO = {**LEROBOTS, "observation.images.side": PICTURE}


@pytest.mark.parametrize(
    ("observation", "told", "expected"),
    [
        (
            TWO,
            features(a=(2, 3, 3), b=(2, 3, 3)),
            r"images\.top: expected .*; say which it is, such as --map",
        ),
        (LEROBOTS, features(), r"observation\.images\.top: expected .*; the robot has no more cameras for it"),
        (LEROBOTS, features(("a", "b"), top=(2, 3, 3)), r"expected float32 \(3,\), got .*; the robot's are a, b"),
        (LEROBOTS, features(top=(4, 3, 3)), r"observation\.images\.top: expected .* 2 x 3.*, got .*"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path_and_what_to_do(observation: Any, told: Any, expected: str) -> None:
    with pytest.raises(BadObservation, match=expected):
        check(spec_of(observation), told)


def test_what_a_user_maps_fits() -> None:
    given = ("images/a=observation.images.side", "images/b=observation.images.top")
    check(spec_of(TWO), features(a=(2, 3, 3), b=(2, 3, 3)), *given)


def test_a_policy_of_other_actions_is_refused() -> None:
    with pytest.raises(WireError, match="actions have one dimension"):
        check(spec_of(OURS, ArraySpec((2, 3))), features(top=(2, 3, 3)))


@pytest.mark.parametrize("asked", ["lerobot act", "lerobot-act", "LeRobot_ACT", " lerobot act "])
def test_a_client_asks_for_a_served_policy_by_its_name(asked: str) -> None:
    assert policy_of(read_setup(setup(asked)), ["other", "lerobot act"]) == "lerobot act"


@pytest.mark.parametrize("asked", ["", "user/model", "/etc/passwd", "lerobot act/../x", "act"])
def test_any_other_name_is_refused_with_the_list_and_the_flag(asked: str) -> None:
    expected = r"expected a policy that is served here \('other', 'lerobot act'\), got .*--pretrained_name_or_path="
    with pytest.raises(WireError, match=expected):
        policy_of(read_setup(setup(asked)), ["other", "lerobot act"])
