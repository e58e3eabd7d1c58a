"""What is shown of one session's observations and actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.observe.looks import Look, names_in
from policyserve.observe.thumbnails import Cut

SPEC = PolicySpec(
    "arm",
    {
        "cameras": {"wrist": ImageSpec(8, 8)},
        "state": ArraySpec((2,), doc="elbow rad, gripper 0 … 1"),
        "prompt": TextSpec(optional=True),
    },
    ArraySpec((3,)),
    horizon=4,
    max_client_batch=8,
)
PICTURE = np.full((8, 8, 3), 9, np.uint8)
SEEN = {"cameras": {"wrist": PICTURE}, "state": np.array([1, 2], np.float32), "prompt": "<b>go</b>"}


def chunk(*shape: int) -> ActionChunk:
    return ActionChunk(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def test_pictures_numbers_and_texts_are_told_apart() -> None:
    cuts: list[Cut] = []
    look = Look(cuts.extend)
    look.see(SEEN, SPEC, 1.0)
    assert [(cut.path, cut.shape) for cut in cuts] == [("cameras/wrist", (8, 8, 3))]
    (state,) = look.numbers
    assert (state.path, state.values, state.names) == ("state", (1.0, 2.0), ("elbow rad", "gripper 0 … 1"))
    assert look.texts == [("prompt", "<b>go</b>")]


def test_what_is_shown_is_a_copy() -> None:
    cuts: list[Cut] = []
    look = Look(cuts.extend)
    picture, state = PICTURE.copy(), np.array([1, 2], np.float32)
    look.see({"cameras": {"wrist": picture}, "state": state}, SPEC, 1.0)
    picture[:], state[:] = 0, 0
    assert cuts[0].pixels.max() == 9
    assert look.numbers[0].values == (1.0, 2.0)


def test_only_some_observations_a_second_are_seen_and_one_picture_is_made_at_a_time() -> None:
    asked: list[Sequence[Cut]] = []
    look = Look(asked.append)
    for now in (1.0, 1.1, 1.3, 1.6):
        look.see(SEEN, SPEC, now)
    assert len(asked) == 1  # the first is still being made
    look.note_pictures([(cut, b"jpeg") for cut in asked[0]])
    look.see(SEEN, SPEC, 1.7)  # too soon
    assert len(asked) == 1
    look.see(SEEN, SPEC, 2.0)
    assert len(asked) == 2
    assert look.thumbnails["cameras/wrist"].jpeg == b"jpeg"


def test_without_pictures_none_is_copied() -> None:
    look = Look(None)
    look.see(SEEN, SPEC, 1.0)
    assert look.texts
    assert look.thumbnails == {}


def test_a_policy_without_a_spec_is_shown_too() -> None:
    cuts: list[Cut] = []
    look = Look(cuts.extend)
    look.see({"camera": PICTURE, "joints": [1.0, 2.0], "n": 3, "none": None, "odd": [[1], [2, 3]]}, None, 1.0)
    assert [cut.path for cut in cuts] == ["camera"]
    assert [(one.path, one.values) for one in look.numbers] == [("joints", (1.0, 2.0)), ("n", (3.0,))]
    look.see(np.array([4.0, 5.0]), None, 9.0)
    assert [(one.path, one.values) for one in look.numbers] == [("obs", (4.0, 5.0))]


def test_of_a_clients_batch_the_first_is_shown() -> None:
    look = Look(None)
    look.see({"state": np.array([[1, 2], [3, 4]], np.float32)}, SPEC, 1.0)
    assert look.numbers[0].values == (1.0, 2.0)
    look.act(chunk(5, 4, 3), SPEC, 1.0)
    assert look.actions() == [[0.0, 3.0, 6.0, 9.0], [1.0, 4.0, 7.0, 10.0], [2.0, 5.0, 8.0, 11.0]]


def test_thousands_of_values_are_bounded() -> None:
    look = Look(None)
    look.see({f"key {number}" * 50: np.zeros(10_000) for number in range(500)}, None, 1.0)
    assert len(look.numbers) <= 24
    assert all(len(one.values) <= 64 and len(one.path) <= 80 for one in look.numbers)
    look.act(chunk(4000, 100), None, 1.0)
    lines = look.actions()
    assert len(lines) == 32
    assert len(lines[0]) <= 128


def test_a_chunk_is_a_line_for_each_dimension() -> None:
    look = Look(None)
    look.act(chunk(4, 3), SPEC, 1.0)
    assert look.actions() == [[0.0, 3.0, 6.0, 9.0], [1.0, 4.0, 7.0, 10.0], [2.0, 5.0, 8.0, 11.0]]


def test_of_a_quick_session_only_some_actions_a_second_are_copied() -> None:
    look = Look(None)
    for number in range(1000):
        look.act(ActionChunk(np.array([number], np.float32)), PolicySpec("quick", None, ArraySpec((1,))), number * 1e-3)
    assert 90 <= len(look.recent) <= 101


@pytest.mark.parametrize("action", [ArraySpec((2,)), None])
def test_single_actions_are_lines_of_the_last_ones(action: ArraySpec | None) -> None:
    look = Look(None)
    spec = PolicySpec("single", None, action)
    for number in range(3):
        look.act(ActionChunk(np.array([number, -number], np.float32)), spec, number)
    assert look.actions() == [[0.0, 1.0, 2.0], [0.0, -1.0, -2.0]]


def test_a_single_number_is_one_dimension() -> None:
    look = Look(None)
    for time, number in enumerate((1, 0, 1)):
        look.act(
            ActionChunk(np.array(number, np.int32)), PolicySpec("left or right", None, ArraySpec((), "int32")), time
        )
    assert look.actions() == [[1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("doc", "count", "names"),
    [
        ("x m, y m", 2, ("x m", "y m")),
        ("x m, y m; in the base's frame", 2, ("x m", "y m")),
        ("angle (0, upright), speed", 2, ("angle (0, upright)", "speed")),
        ("cos and sin of the angle, speed", 3, ()),
        ("torque", 1, ()),
        ("", 7, ()),
    ],
)
def test_names_are_told_where_a_description_lists_them(doc: str, count: int, names: Any) -> None:
    assert names_in(doc, count) == names
