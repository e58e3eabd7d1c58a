"""When no replica is asked any more, and when a request is sent alone."""

from __future__ import annotations

import pytest

from policyserve.ray.tries import Tries


@pytest.mark.parametrize(
    ("most", "lost", "silent", "is_spent", "wants_alone"),
    [
        (3, 0, 0, False, False),
        (3, 1, 5, False, False),
        (3, 2, 0, False, True),
        (3, 3, 0, True, False),
        (3, 0, 6, True, False),
        (2, 1, 0, False, True),
        (1, 0, 0, False, False),  # the first is the last: nothing was lost with it
        (1, 1, 0, True, False),
    ],
)
def test_the_last_try_after_losses_is_made_alone(
    most: int, lost: int, silent: int, is_spent: bool, wants_alone: bool
) -> None:
    tries = Tries(most, lost, silent)
    assert (tries.are_spent, tries.want_alone) == (is_spent, wants_alone)
    assert not Tries(most, lost, silent, is_alone=True).want_alone
