"""Which word was probably meant."""

from __future__ import annotations

import pytest

from policyserve.core.nearest import nearest

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
