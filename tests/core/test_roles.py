"""What a key is, and what the words of a camera's name mean."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.roles import are_same, is_state, kind_of, roles_told, share_a_word
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec


@pytest.mark.parametrize(
    ("one", "other", "same", "shared"),
    [
        ("images/agentview", "observation/primary_image", True, True),
        ("images/wrist_left", "left_wrist_cam", True, True),
        ("images/wrist", "wrist_left", False, True),
        ("images/top", "observation.images.bottom", False, False),
        ("images/0", "image", False, False),
        ("image", "rgb", False, False),
    ],
)
def test_names_are_compared_by_the_words_that_tell_them_apart(one: str, other: str, same: bool, shared: bool) -> None:
    assert (are_same(one, other), share_a_word(one, other)) == (same, shared)


def test_values_are_pictures_texts_or_numbers() -> None:
    kinds = [kind_of(value) for value in (np.zeros((2, 2, 3), np.uint8), np.zeros(3, np.uint8), "go", 1.5, True, None)]
    assert kinds == ["picture", "numbers", "text", "numbers", None, None]


def test_a_person_is_told_what_becomes_of_pictures_state_and_task() -> None:
    leaves = {
        "image": ImageSpec(),
        "joint_position": ArraySpec((7,)),
        "temperature": ArraySpec((1,)),
        "task": TextSpec(),
    }
    spec = PolicySpec("told", leaves, None)
    assert roles_told(spec) == {"images": ["image"], "state": ["joint_position"], "prompt": ["task"]}
    assert not is_state("temperature", spec)
    assert is_state("x", PolicySpec("alone", {"x": ArraySpec((1,))}, None))
