"""A policy that is there already, where a recipe is expected."""

from __future__ import annotations

from policyserve.engine.ready import ReadyPolicy
from tests.engine.obedient import Obedient


def test_a_ready_policy_is_the_same_each_time() -> None:
    policy = Obedient()
    load = ReadyPolicy(policy)
    assert load(print) is load(print) is policy
