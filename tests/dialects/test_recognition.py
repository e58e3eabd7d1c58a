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
from tests.dialects.golden_more import message

ARRAYS = {"nd": np.zeros(2), "type": np.zeros(3)}  # keys that are marks of another family


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize("name", [name for name in names() if has_client(by_name(name))])
def test_a_first_frame_with_an_array_shows_its_family(name: str, greeted: bool) -> None:
    frame = by_name(name).write_request({"obs": np.zeros(4)})
    assert family_of_first_message(frame, greeted) == name
    assert Auto().settle(frame, greeted) is by_name(name)


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
        ({}, "openpi"),
    ],
)
def test_a_greeting_shows_whose_server_it_is(metadata: dict[str, Any], name: str) -> None:
    assert family_of_greeting(metadata) == name
