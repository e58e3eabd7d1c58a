"""What is passed, and how the figures are told to programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from policyserve import ArraySpec, PolicySpec
from policyserve.replay.gathered import Gathered, names_of


def gathered(*apart: float) -> Gathered:
    """One session whose answers are 1 apart from each of these."""
    made = Gathered(sessions=1, requests=len(apart))
    for step, one in enumerate(apart, 1):
        made.answered(1, step, np.ones(1), np.ones(1) + one)
    return made


@pytest.mark.parametrize(
    ("apart", "tolerance", "word", "status"),
    [
        ([0.0, 0.0], None, "same", 0),
        ([0.0, 1e-9], None, "within", 0),
        ([0.0, 1e-9], 0.0, "beyond", 1),
        ([0.0, 0.25], 0.5, "within", 0),
        ([0.0, 0.25], 0.125, "beyond", 1),
        ([math.nan], 1e6, "beyond", 1),
        ([], None, "nothing", 1),
    ],
)
def test_the_verdict_says_whether_all_is_within(
    apart: list[float], tolerance: float | None, word: str, status: int
) -> None:
    verdict = gathered(*apart).compared(tolerance)
    assert (verdict.word, verdict.status, verdict.is_passed) == (word, status, status == 0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made.refuse(1, 3, "overloaded", "full"),
        lambda made: made.unmatched.append("session 2 is in b.mcap alone"),
        lambda made: setattr(made, "stopped", "by Ctrl-C"),
    ],
)
def test_what_could_not_be_compared_never_passes(spoil: Callable[[Gathered], object]) -> None:
    made = gathered(0.0)
    spoil(made)
    verdict = made.compared(None)
    assert (verdict.word, verdict.status) == ("incomplete", 1)


def test_what_is_kept_is_a_copy() -> None:
    made, actions = Gathered(), np.zeros(2)
    made.answered(1, 1, actions, actions)
    actions[0] = 7
    assert made.compared(None).comparison.is_same


def test_programs_get_json_whatever_the_numbers_are() -> None:
    made = gathered(0.5, math.inf, math.nan)
    made.answered(1, 4, np.zeros(2), np.zeros(3))
    made.refuse(1, 5, "bad_observation", "a\ntext")
    made.repeated["noise"] += 1
    document = json.loads(json.dumps(made.compared(None).as_json("one.mcap"), allow_nan=False))
    assert (document["format"], document["verdict"], document["status"]) == (1, "beyond", 1)
    assert document["dimensions"][0]["max"] is None
    assert document["first_beyond"]["step"] == 1
    assert document["other_shapes"] == [{"session": 1, "step": 4, "recorded": [2], "replayed": [3]}]
    assert document["refused"] == [{"session": 1, "step": 5, "code": "bad_observation", "text": "a\\ntext"}]
    assert document["repeated"] == {"noise": 1}


@pytest.mark.parametrize(
    ("shape", "doc", "names"),
    [
        ((3,), "x, y, gripper", ("x", "y", "gripper")),
        ((3,), "x, y, gripper; in metres", ("x", "y", "gripper")),
        ((1,), "torque, N m; clipped", ("torque, N m",)),
        ((), "0 pushes the cart left, 1 pushes it right", ()),
        ((3,), "the arm's joints", ()),
        ((2, 2), "a, b, c, d", ("a", "b", "c", "d")),
        ((None,), "a, b", ()),
        ((2,), "a,", ()),
        ((2,), "", ()),
    ],
)
def test_numbers_have_the_names_of_the_specs_doc(
    shape: tuple[int | None, ...], doc: str, names: tuple[str, ...]
) -> None:
    assert names_of(ArraySpec(shape, doc=doc)) == names


def test_a_number_without_a_name_is_told_by_its_place() -> None:
    made = Gathered()
    assert made.name_of(2) == "action[2]"
    made.describe_actions(PolicySpec("arm", None, ArraySpec((2,), doc="reach, grip")))
    assert (made.name_of(1), made.name_of(2), made.action_axes) == ("grip", "action[2]", 1)
