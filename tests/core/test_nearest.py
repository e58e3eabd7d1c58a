"""Which word was probably meant."""

from __future__ import annotations

import pytest

from policyserve.core.nearest import nearest, nearest_path

NAMES = ["cartpole_ppo", "cartpole_dqn", "wall-x"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("cartpole_pp", "cartpole_ppo"),
        ("cartpole-ppo", "cartpole_ppo"),
        ("CARTPOLE_PPO", "cartpole_ppo"),
        ("wall_x", "wall-x"),
        ("Wallx", "wall-x"),
        ("robot", None),
        ("", None),
    ],
)
def test_the_word_that_is_most_alike_is_found_whatever_its_case_and_its_dashes(wanted: str, found: str | None) -> None:
    assert nearest(wanted, NAMES) == found


def test_how_alike_words_have_to_be_is_the_callers_choice() -> None:
    assert nearest("cart", NAMES, 0.4) == "cartpole_ppo"
    assert nearest("cart", NAMES, 0.9) is None


@pytest.mark.parametrize(
    ("wanted", "known", "found"),
    [
        ("image", ["observation/image", "imagine"], "observation/image"),
        ("observation/state", ["images/top", "state"], "state"),
        ("image", ["left/image", "right/image", "imagee"], "imagee"),
        ("observation/image", ["observation/imgae"], "observation/imgae"),
    ],
)
def test_a_path_that_ends_alike_is_near_where_it_is_the_only_one(wanted: str, known: list[str], found: str) -> None:
    assert nearest_path(wanted, known) == found
