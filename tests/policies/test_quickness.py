"""What is measured of a policy before it may run in the event loop."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.policies.fakes import EchoPolicy
from policyserve.policies.quickness import is_quick


class Timed(EchoPolicy):
    """A policy on a clock of its own: its calls take what is said, in turn."""

    def __init__(self, *each_us: float) -> None:
        super().__init__()
        self.now_s = 0.0
        self.calls = 0
        self.each_us = each_us

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        self.now_s += self.each_us[self.calls % len(self.each_us)] * 1e-6
        self.calls += 1
        return super().infer(batch)


@pytest.mark.parametrize(
    ("each_us", "quick"), [((8,), True), ((49, 49, 900), True), ((60,), False), ((49, 60, 60), False)]
)
def test_a_policy_is_quick_if_most_of_its_calls_are(each_us: tuple[float, ...], quick: bool) -> None:
    policy = Timed(*each_us)
    assert is_quick(policy, lambda: policy.now_s) is quick


def test_a_slow_policy_is_asked_no_oftener_than_it_takes_to_know_that() -> None:
    policy = Timed(500_000)
    assert not is_quick(policy, lambda: policy.now_s)
    assert policy.calls == 2
