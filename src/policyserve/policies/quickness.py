"""Whether a policy is quick enough to run in the event loop, which is measured when it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from policyserve.core.policy import Policy, PolicyInput

_QUICK_S = 50e-6  # about what a hop to a thread and back costs
_LONGEST_S = 1e-3  # for which a full batch may hold the event loop up
_CALLS = 31
_BATCHES = 5


def is_quick(policy: Policy, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Whether one observation takes less than 50 µs, and a full batch less than 1 ms, by its spec's example.

    It calls the policy some forty times, which also warms it. Raises what the policy raises.
    """
    one = [PolicyInput(policy.spec.example())]
    if _typical_s(policy, one, _CALLS, clock) >= _QUICK_S:
        return False
    full = [PolicyInput(policy.spec.example()) for _ in range(policy.spec.max_batch)]
    return _typical_s(policy, full, _BATCHES, clock) < _LONGEST_S


def _typical_s(policy: Policy, batch: list[PolicyInput], calls: int, clock: Callable[[], float]) -> float:
    policy.infer(batch)
    took: list[float] = []
    for _ in range(calls):
        started_at = clock()
        policy.infer(batch)
        took.append(clock() - started_at)
    return median(took)
