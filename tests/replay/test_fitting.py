"""What a policy would not take of a recording is told key by key, before it is asked."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve import ArraySpec, PolicySpec
from policyserve.replay.fitting import dropped, misfits

SPEC = PolicySpec("arm", {"state": ArraySpec((7,)), "cams/wrist": ArraySpec((2, 2))}, ArraySpec((7,)), horizon=10)
OBSERVATION = {"state": np.zeros(7, np.float32), "cams": {"wrist": np.zeros((2, 2), np.float32)}}
ACTIONS = np.zeros((10, 7), np.float32)


def test_what_fits_is_not_told() -> None:
    assert misfits(SPEC, OBSERVATION, ACTIONS) == []
    assert misfits(SPEC, OBSERVATION, np.zeros((4, 10, 7), np.float32)) == []  # a client's batch of four
    assert misfits(SPEC, OBSERVATION, None) == []
    assert misfits(PolicySpec("any", None, None), {"x": 1}, ACTIONS) == []


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((10, 6), "actions: recorded float32 (10, 6), the policy answers float32 (10, 7)"),
        ((50, 7), "actions: recorded float32 (50, 7), the policy answers float32 (10, 7)"),
        ((7,), "actions: recorded float32 (7,), the policy answers float32 (10, 7)"),
        ((), "actions: recorded float32 (), the policy answers float32 (10, 7)"),
    ],
)
def test_other_actions_are_told(shape: tuple[int, ...], told: str) -> None:
    assert misfits(SPEC, OBSERVATION, np.zeros(shape, np.float32)) == [told]


def test_every_key_that_is_missing_or_has_another_form_is_told() -> None:
    recorded = {"state": np.zeros(6, np.float32), "cams": {"hand": np.zeros((3, 3), np.float32)}}
    first, second, *_ = misfits(SPEC, recorded, None)
    assert first == "state: expected float32 (7,), got float32 (6,)"
    assert second.startswith("cams/wrist: expected float32 (2, 2), got no such key")


def test_keys_that_the_policy_does_not_ask_for_are_named() -> None:
    assert dropped(SPEC, {**OBSERVATION, "prompt": "go"}) == ["prompt"]
    assert dropped(PolicySpec("any", None, None), {"x": 1}) == []
