"""Whose message it is: every family's own is known by its marks, and no family's is taken for another's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.dialect import has_client
from policyserve.core.errors import WrongDialect
from policyserve.dialects import Auto, by_name, names
from policyserve.dialects.recognition import check_spelling, family_of, family_of_first_message, family_of_greeting
from policyserve.dialects.unpacking import unpack
from tests.dialects.recorded import message

ARRAYS = {"nd": np.zeros(2), "type": np.zeros(3)}  # keys that are marks of another family


ROBOT = {"images": {"head": np.zeros((2, 2, 3), np.uint8)}, "state": {"arm": np.zeros(7)}, "prompt": "go"}
# Whose clients' messages look so; their paths tell them.
ALIKE = {"dreamzero": "roboarena", "vllm_omni": "roboarena", "cosmos": "openpi"}


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize("name", [name for name in names() if has_client(by_name(name)) and name != "lerobot"])
def test_a_first_frame_with_an_array_shows_its_family(name: str, greeted: bool) -> None:
    frame = by_name(name).write_request({"obs": np.zeros(4)} if name == "vibe_rl" else ROBOT)
    family = ALIKE.get(name, name)
    assert family_of_first_message(frame, greeted) == family
    assert Auto().settle(frame, greeted) is by_name(family)


ARRAY = np.zeros(3)
OWN_KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "a reset alone": ("behavior1k", {"reset": True}),
    "a reset beside an array": ("openpi", {"reset": True, "state": ARRAY}),
    "the simulator's keys": ("behavior1k", {"robot_r1::proprio": ARRAY}),
    "an endpoint": ("roboarena", {"endpoint": "reset"}),
    "an endpoint that is a number": ("openpi", {"endpoint": 4, "state": ARRAY}),
    "examples": ("starvla", {"examples": [{"image": ARRAY}]}),
    "examples that are an array": ("openpi", {"examples": ARRAY}),
    "an envelope": ("starvla", {"type": "ping", "request_id": "r1"}),
    "a payload": ("starvla", {"type": "infer", "payload": {"examples": []}}),
    "an envelope with a number": ("vla_eval", {"type": "observation", "payload": {}, "seq": 1, "timestamp": 0.5}),
    "a type alone": ("openpi", {"type": "infer", "state": ARRAY}),
    "a task with joints": ("molmospaces", {"task": "go", "qpos": {"arm": ARRAY}}),
    "a task with an array": ("openpi", {"task": "go", "qpos": ARRAY}),
    "a task alone": ("openpi", {"task": "go", "state": ARRAY}),
    "an endpoint and examples": ("roboarena", {"endpoint": "infer", "examples": [1]}),
}


@pytest.mark.parametrize("what", OWN_KEYS)
def test_after_the_greeting_keys_tell_before_arrays_do(what: str) -> None:
    family, message = OWN_KEYS[what]
    assert family_of_first_message(by_name("openpi").write_request(message), greeted=True) == family


def test_the_mark_of_vibe_rl_goes_before_every_other() -> None:
    frame = by_name("vibe_rl").write_request({"endpoint": ARRAY, "robot::state": ARRAY, "examples": ARRAY})
    assert family_of_first_message(frame, greeted=False) == "vibe_rl"


@pytest.mark.parametrize("name", ["openpi", "wall_x", "vibe_rl"])
def test_on_its_own_path_a_founding_dialect_reads_other_families_keys_as_an_observation(name: str) -> None:
    told = {"endpoint": ARRAY, "reset": ARRAY, "robot::state": ARRAY, "examples": ARRAY}
    read = by_name(name).read_request(by_name(name).write_request(told))
    assert list(read.observation) == list(told)


@pytest.mark.parametrize(("greeted", "name"), [(False, "vibe_rl"), (True, "openpi")])
@pytest.mark.parametrize("frame", [b"\x80", b"", b"\xc1", "text", b"\x81\xa6prompt\xa2go"])
def test_a_frame_without_a_mark_is_told_by_whether_it_came_unasked(frame: Any, greeted: bool, name: str) -> None:
    assert family_of_first_message(frame, greeted) == name


def test_array_names_that_are_another_familys_marks_do_not_mislead() -> None:
    assert family_of_first_message(by_name("vibe_rl").write_request(ARRAYS), greeted=False) == "vibe_rl"


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize("name", ["vla_eval", "xpolicylab"])
def test_a_hello_shows_its_family(name: str, greeted: bool) -> None:
    assert family_of_first_message(message(name, "hello"), greeted) == name
    assert Auto().settle(message(name, "hello"), greeted) is by_name(name)


def test_a_familys_own_arrays_outweigh_the_key_of_another() -> None:
    written = by_name("openpi").write_request({"__meta__": 1, "obs": np.zeros(4)})
    assert "obs" in by_name("openpi").read_request(written).observation
    other = unpack(by_name("wall_x").write_request({"obs": np.zeros(4)}))
    assert family_of(other) == "wall_x"
    with pytest.raises(WrongDialect, match="connect to /wall_x"):
        check_spelling(other, "openpi", "another")
    check_spelling(other, "wall_x", "another")


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"predict_mode": "flow"}, "wall_x"),
        ({"predict_mode": None, "policyserve": "1.0"}, "openpi"),
        ({"robot": "arm"}, "openpi"),
        (by_name("roboarena").read_greeting(by_name("roboarena").greeting({}) or b""), "roboarena"),
        ({"action_chunk_size": 4}, "starvla"),
        ({"action_chunk_size": 4, "policyserve": "1.0"}, "openpi"),
        ({}, "openpi"),
    ],
)
def test_a_greeting_shows_whose_server_it_is(metadata: dict[str, Any], name: str) -> None:
    assert family_of_greeting(metadata) == name
