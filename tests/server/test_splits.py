"""A split draws by its shares, and the same again with the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from policyserve.core.errors import ConfigError
from policyserve.server.splits import Draws, Split


def drawn(split: Split, count: int = 2000) -> list[str]:
    draws = Draws("/arm", split)
    return [draws.draw() for _ in range(count)]


def test_the_same_seed_draws_the_same() -> None:
    split = Split({"v1": 0.5, "v2": 0.5}, seed=7)
    assert drawn(split) == drawn(split)
    assert drawn(split) != drawn(Split({"v1": 0.5, "v2": 0.5}, seed=8))


def test_shares_need_not_add_up_to_one() -> None:
    counts = Counter(drawn(Split({"v1": 3, "v2": 1, "v3": 0}, seed=0)))
    assert 1400 < counts["v1"] < 1600
    assert counts["v1"] + counts["v2"] == 2000


def test_without_a_seed_one_is_made_up_and_told() -> None:
    draws = Draws("/arm", Split({"v1": 1, "v2": 1}))
    first = [draws.draw() for _ in range(100)]
    assert drawn(Split({"v1": 1, "v2": 1}, seed=draws.seed), 100) == first


@pytest.mark.parametrize(
    "shares", [{}, {"v1": 0.0}, {"v1": -1.0, "v2": 2.0}, {"v1": float("nan")}, {"v1": float("inf")}]
)
def test_shares_that_cannot_be_drawn_by_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r'routes."/arm": split: expected shares of 0 or more'):
        Draws("/arm", Split(shares))
