"""The object that programs get: always the same keys, and JSON whatever a policy's metadata hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from policyserve.cli.inspection.facts import Facts
from policyserve.core.policy import open_spec
from policyserve.core.spec import ArraySpec, PolicySpec

SPEC = PolicySpec("arm", {"obs": ArraySpec((3,), doc="rad")}, ArraySpec((2,)), aliases={"state": "obs"})


def test_the_keys_are_the_same_whatever_is_known() -> None:
    told = [
        Facts("arm.onnx", "onnx", "an arm", spec=SPEC),
        Facts("arm.onnx", "onnx", "an arm", refused="no arm"),
        Facts("ws://robot", "server", "ws://robot", is_server=True),
    ]
    assert len({tuple(one.as_json()) for one in told}) == 1
    assert [one.as_json()["refused"] for one in told] == [None, "no arm", None]
    assert [one.as_json()["batch"] is None for one in told] == [False, True, True]


def test_a_spec_is_as_a_greeting_has_it_and_an_open_one_is_null() -> None:
    spec = Facts("arm", "arm", "an arm", spec=SPEC).as_json()["spec"]
    assert spec["observation"]["obs"]["doc"] == "rad"
    assert spec["aliases"] == {"state": "obs"}
    assert Facts("arm", "arm", "an arm", spec=open_spec("arm")).as_json()["spec"]["observation"] is None


def test_any_metadata_can_be_written() -> None:
    endless: dict[str, Any] = {}
    endless["inner"] = endless
    metadata = {
        "nan": float("nan"), "few": np.arange(3), "many": np.zeros((600, 2)), "one": np.float32(2), "odd": object,
        "endless": endless, "texts": np.array(["a"]),
    }  # fmt: skip
    told = json.loads(json.dumps(Facts("arm", "arm", "an arm", metadata=metadata).as_json(), allow_nan=False))[
        "metadata"
    ]
    assert (told["nan"], told["few"], told["one"]) == (None, [0, 1, 2], 2.0)
    assert told["many"] == {"dtype": "float64", "shape": [600, 2]}
