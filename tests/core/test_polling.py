"""When polling pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.polling import RecentWaits


@given(st.lists(st.floats(0, 3e-3)))
def test_polling_pays_if_three_of_the_last_four_waits_would_have_ended_in_time(seconds: list[float]) -> None:
    waits = RecentWaits(1e-3)
    for index, wait in enumerate(seconds):
        waits.add(wait)
        assert waits.are_short == (sum(one < 1e-3 for one in seconds[: index + 1][-4:]) >= 3)


def test_nobody_polls_at_first() -> None:
    assert not RecentWaits(1.0).are_short


@pytest.mark.parametrize("wait", [0.0, 1e-9])
def test_a_bound_of_zero_turns_it_off(wait: float) -> None:
    waits = RecentWaits(0.0)
    for _ in range(4):
        waits.add(wait)
    assert not waits.are_short
