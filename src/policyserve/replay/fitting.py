"""Whether a policy takes and gives what a recording holds, key by key, before it is asked. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from policyserve.core.arrays import Array, describe
from policyserve.core.leaf_specs import sizes_match
from policyserve.core.messages import Observation
from policyserve.core.spec import PolicySpec
from policyserve.doctor.comparing import faults


def misfits(spec: PolicySpec, observation: Observation, actions: Array | None) -> list[str]:
    """What the policy would not take of a recorded observation, and the actions if it answers others; a line each."""
    found = [str(fault) for fault in faults(spec, observation) if not fault.is_harmless]
    return [*found, *_of_actions(spec, actions)]


def dropped(spec: PolicySpec, observation: Observation) -> list[str]:
    """The keys of a recorded observation that the policy does not ask for."""
    if spec.observation is None:
        return []
    harmless = [fault for fault in faults(spec, observation) if fault.is_harmless]
    return [fault.path for fault in harmless if fault.path not in spec.leaves]


def _of_actions(spec: PolicySpec, actions: Array | None) -> Iterator[str]:
    if spec.action is None or actions is None:
        return
    shape = (*(() if spec.horizon is None else (spec.horizon,)), *spec.action.shape)
    recorded = actions.shape[max(actions.ndim - len(shape), 0) :]  # without a client's batch
    if not sizes_match(recorded, shape):
        got, expected = describe(actions.dtype, recorded), describe(spec.action.dtype, shape)
        yield f"actions: recorded {got}, the policy answers {expected}"
