"""What is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.bench.payloads import KNOWN, Payload, payload_for, read_spec
from policyserve.core.errors import ConfigError
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.dialects import by_name


@pytest.mark.parametrize(("name", "size"), [("cartpole", 16), ("libero", 301_056), ("aloha", 2_764_800)])
def test_the_known_payloads_have_the_sizes_they_are_known_for(name: str, size: int) -> None:
    payload = payload_for(name, {}, "openpi")
    assert size <= payload.size <= size + 100
    assert by_name("openpi").read_request(memoryview(bytes(by_name("openpi").write_request(payload.observation))))  # type: ignore[arg-type]


def test_every_run_sends_the_same_numbers() -> None:
    one, other = (payload_for("aloha", {}, "openpi").observation for _ in range(2))
    assert np.array_equal(one["images"]["cam_high"], other["images"]["cam_high"])
    assert len(np.unique(one["images"]["cam_high"])) == 256


def test_vibe_rl_gets_paths_where_others_get_nested_maps() -> None:
    assert next(iter(payload_for("aloha", {}, "vibe_rl").observation)) == "images/cam_high"


def test_auto_is_made_of_the_spec_in_the_greeting_and_meets_it() -> None:
    spec = PolicySpec(
        "robot",
        {
            "images": {"front": ImageSpec(layouts=("CHW",), dtypes=("float",)), "wrist": ImageSpec(32, 48)},
            "state": ArraySpec((None, 3), "float64"),
            "prompt": TextSpec(),
            "tasks": TextListSpec(),
        },
        None,
    )
    greeting = json.loads(json.dumps({"spec": spec.describe()}))
    assert spec.validate(payload_for("auto", greeting, "openpi").observation).unknown == ()


@pytest.mark.parametrize("greeting", [{}, {"spec": None}, {"spec": {"observation": {}}}])
def test_auto_without_a_spec_asks_for_a_payload(greeting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"does not tell what it takes: name a --payload \(cartpole, libero, aloha"):
        payload_for("auto", greeting, "openpi")


WRONG: dict[str, tuple[Any, str]] = {
    "a list": ([1], "expected a map of key to shape"),
    "nothing": ({}, "got an empty dict"),
    "a number": ({"x": 3}, "x: expected .* got int 3"),
    "an empty leaf": ({"x": {"y": {}}}, "x/y: expected"),
    "a shape that is none": ({"x": {"shape": 3}}, "x: expected a list of sizes as shape, got 3"),
    "a negative size": ({"x": {"shape": [-1]}}, r"x: expected a list of sizes as shape, got \[-1\]"),
    "an unknown dtype": ({"x": {"shape": [2], "dtype": "flaot32"}}, "x: expected a dtype such as float32"),
    "texts as a dtype": ({"x": {"shape": [2], "dtype": "str"}}, "x: expected a dtype of numbers"),
    "too much": ({"a": {"x": {"shape": [1 << 20, 1 << 20]}}}, "a/x: expected at most 1 GiB"),
    "a text that is none": ({"x": {"text": 3}}, "x: expected a str as text, got int 3"),
    "texts that are none": ({"x": {"texts": "a"}}, "x: expected a list as texts"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_description_is_one_line_that_names_the_key(mistake: str) -> None:
    spec, said = WRONG[mistake]
    with pytest.raises(ConfigError, match=said) as caught:
        read_spec(spec, "file")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("file: ")


def test_a_file_describes_a_payload(tmp_path: Path) -> None:
    file = tmp_path / "robot.json"
    file.write_text(
        json.dumps({"state": {"shape": [3]}, "n": {"a": {"shape": [], "dtype": "bool"}}, "p": {"text": "x"}})
    )
    payload = payload_for(str(file), {}, "openpi")
    assert (payload.name, payload.observation["state"].dtype, payload.observation["p"]) == (
        "robot.json",
        "float32",
        "x",
    )
    assert payload.observation["n"]["a"].shape == ()


def test_a_size_is_told_as_people_say_it() -> None:
    sizes = {name: str(payload_for(name, {}, "openpi")) for name in KNOWN}
    assert sizes == {"cartpole": "cartpole (16 bytes)", "libero": "libero (301 kB)", "aloha": "aloha (2.76 MB)"}
    assert str(Payload("x", {"a": "é"})) == "x (1 bytes)"
