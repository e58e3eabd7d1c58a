"""Trying a policy out: whether its rows are answered alike alone and in a batch."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve import ArraySpec, PolicySpec
from policyserve.policies.stacked import Forward, StackedPolicy
from policyserve.policies.trying import TriedPolicy, drawn, is_same_in_a_batch

SPEC = PolicySpec("a", {"obs": ArraySpec((3,)), "step": ArraySpec((1,), "int64")}, ArraySpec((3,)), max_batch=8)


def test_what_is_drawn_is_not_zeros_and_the_same_each_time() -> None:
    first, again = list(drawn(SPEC)), list(drawn(SPEC))
    assert len(first) == 3
    assert all(
        one["obs"].any() and np.array_equal(one["obs"], other["obs"]) for one, other in zip(first, again, strict=True)
    )
    assert all(one["step"].dtype == np.int64 for one in first)


@pytest.mark.parametrize(
    ("forward", "is_same"),
    [
        (lambda rows: rows["obs"] * 2, True),
        (lambda rows: rows["obs"] + 1e-7 * len(rows["obs"]), True),
        (lambda rows: rows["obs"] - rows["obs"].mean(0), False),
        (lambda rows: rows["obs"] + len(rows["obs"]), False),
        (lambda rows: rows["obs"][:1], False),
    ],
)
def test_rows_that_depend_on_one_another_are_found(forward: Forward, is_same: bool) -> None:
    assert is_same_in_a_batch(StackedPolicy(forward, SPEC), 1e-5) is is_same


def test_a_policy_that_was_tried_is_warmed_at_the_sizes_that_it_is_said() -> None:
    policy = TriedPolicy(StackedPolicy(lambda rows: rows["obs"], SPEC), (1,))
    assert (policy.spec, policy.buckets) == (SPEC, (1,))
