"""What a recording tells of a policy survives being written and read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from policyserve import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec, WireError
from policyserve.recordings.layout import PolicyFacts, json_of

SPEC = PolicySpec(
    "all",
    {
        "image": ImageSpec(None, 6, layouts=("CHW", "HWC"), dtypes=("float", "uint8"), doc="any"),
        "state": ArraySpec((None, 2), "float64", optional=True),
        "prompt": TextSpec(default="go"),
        "words": TextListSpec(),
    },
    ArraySpec((3,), doc="x, y, grip"),
    horizon=4,
    max_batch=8,
    max_client_batch=16,
    metadata={"checkpoint_step": 3},
    dialect="wall_x",
)


def test_a_spec_is_read_as_it_was() -> None:
    facts = PolicyFacts.read(PolicyFacts.of(SPEC).record())
    assert facts == PolicyFacts.of(SPEC)
    assert (facts.checkpoint, facts.dialect) == ("3", "wall_x")
    read = facts.policy_spec()
    assert read is not None
    assert read.describe() == SPEC.describe()
    assert (read.name, read.max_batch, read.max_client_batch) == ("all", 8, 16)


def test_a_policy_without_a_spec_and_one_that_nobody_told_of_are_two_things() -> None:
    anything = PolicyFacts.of(PolicySpec("any", None, None)).policy_spec()
    assert anything is not None
    assert anything.leaves == {}
    assert PolicyFacts("foreign", {}).policy_spec() is None


@pytest.mark.parametrize("told", ["[]", "3", "{"])
def test_what_is_no_spec_is_an_error(told: str) -> None:
    with pytest.raises(ValueError, match=r"expected|Expecting"):
        PolicyFacts.read({"spec": told})
    with pytest.raises(WireError):
        PolicyFacts("x", {"observation": {"a": 3}}).policy_spec()


def test_what_json_has_not_is_told_as_text() -> None:
    told = json_of({"a": np.arange(2), "b": np.float32(1.5), "c": object, "d": "\ud800"})
    read = json.loads(told)
    assert (read["a"], read["b"]) == ([0, 1], 1.5)
    assert "object" in read["c"]
