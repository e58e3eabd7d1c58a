"""Whether a policy is quick enough to run in the event loop, which is measured when it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from policyserve.core.policy import Policy, PolicyInput

_QUICK_S = 50e-6  # about what a hop to a thread and back costs
_CALLS = 31


def is_quick(policy: Policy, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Whether answering one observation, its spec's example, typically takes less than 50 µs.

    It calls the policy some thirty times, which also warms it. Raises what the policy raises.
    """
    one = [PolicyInput(policy.spec.example())]
    policy.infer(one)
    took: list[float] = []
    for _ in range(_CALLS):
        started_at = clock()
        policy.infer(one)
        took.append(clock() - started_at)
        if took[0] > _QUICK_S * _CALLS:
            return False  # so slow that no other call needs to be waited for
    return median(took) < _QUICK_S
