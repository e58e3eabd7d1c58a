"""What is measured of a policy before it may run in the event loop."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.policies.fakes import EchoPolicy
from policyserve.policies.quickness import is_quick


class Timed(EchoPolicy):
    """A policy on a clock of its own: each call takes what is said, for each observation."""

    def __init__(self, base_us: float, each_us: float) -> None:
        super().__init__(max_batch=64)
        self.now_s = 0.0
        self.cost_us = base_us, each_us

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        self.now_s += (self.cost_us[0] + self.cost_us[1] * len(batch)) * 1e-6
        return super().infer(batch)


@pytest.mark.parametrize(
    ("base_us", "each_us", "quick"), [(8, 0, True), (0, 8, True), (60, 0, False), (0, 40, False), (49, 0.5, True)]
)
def test_a_policy_is_quick_if_one_observation_and_a_full_batch_are(base_us: float, each_us: float, quick: bool) -> None:
    policy = Timed(base_us, each_us)
    assert is_quick(policy, lambda: policy.now_s) is quick
