"""Observations of zeros, from nothing but a greeting."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import WireError
from policyserve.core.examples import example_of, spec_of
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from tests.core.test_leaf_specs import LEAVES

FULL = PolicySpec(
    "full",
    {
        "arm": {"joints": ArraySpec((None, 7))},
        "camera": ImageSpec(2, 3, layouts=("CHW",), dtypes=("float",)),
        "prompt": TextSpec(),
        "names": TextListSpec(),
        "noise": ArraySpec((3,), optional=True),
        "depth": ImageSpec(2, 2, optional=True),
        "mood": TextSpec(default="calm"),
        "hint": TextSpec(optional=True),
        "tags": TextListSpec(optional=True),
    },
    None,
)


def told(spec: PolicySpec) -> dict[str, Any]:
    """What a client reads in the greeting."""
    return json.loads(json.dumps(spec.describe()))


def test_what_must_be_there_is_and_meets_the_spec() -> None:
    example = example_of(told(FULL))
    assert list(example) == ["arm/joints", "camera", "prompt", "names"]
    found = FULL.validate(example).observation
    assert not np.any(found["arm"]["joints"])
    assert found["camera"].shape == (3, 2, 3)


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_every_leaf_is_understood(leaf: Any) -> None:
    spec = PolicySpec("p", {"x": leaf}, None)
    spec.validate(example_of(told(spec)))


def test_other_names_of_its_keys_are_understood() -> None:
    spec = PolicySpec("p", {"x": ArraySpec((2,))}, None, aliases={"obs": "x"})
    assert spec_of(told(spec)).aliases == {"obs": "x"}


def test_of_a_policy_without_a_spec_nothing_is_known() -> None:
    assert example_of(told(PolicySpec("p", None, None))) == {}
    assert example_of({}) == {}


@pytest.mark.parametrize("leaf", [None, "text", {}, {"kind": "sound"}, {"kind": "array"}, {"kind": "image"}])
def test_what_is_no_description_is_refused_with_its_path(leaf: Any) -> None:
    with pytest.raises(WireError, match=r"^arm/x: expected an array, an image or a text"):
        example_of({"observation": {"arm/x": leaf}})


def test_a_described_spec_is_the_spec_again() -> None:
    observation = {
        "image": ImageSpec(None, 32, ("CHW", "HWC"), ("uint8", "float")),
        "state": ArraySpec((None, 3), "float64", optional=True),
        "prompt": TextSpec(default="go"),
        "names": TextListSpec(),
    }
    spec = PolicySpec("arm", observation, ArraySpec((7,)), horizon=4)
    again = spec_of(spec.describe(), "arm")
    assert again == spec


def test_a_spec_of_nothing_takes_anything() -> None:
    assert spec_of(PolicySpec("any", None, None).describe(), "any") == PolicySpec("any", None, None)


@pytest.mark.parametrize(
    "described",
    [
        {"observation": {"state": {"kind": "array", "shape": [-1], "dtype": "float32"}}},
        {"observation": {"state": 3}},
        {"action": {"shape": [7]}},
        {"action": None, "horizon": -2},
        {"action": {"shape": 7, "dtype": "float32"}},
    ],
)
def test_what_describes_no_spec_is_refused(described: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="as policyserve describes"):
        spec_of(described)
