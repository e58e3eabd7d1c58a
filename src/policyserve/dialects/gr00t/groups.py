"""An action as GR00T's clients get it: in parts, each by its name, with axes of batch and time.

A policy that declares no parts (dialects/action_groups.py) has the one part `action`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import PolicyFailed
from policyserve.core.spec import PolicySpec
from policyserve.dialects import action_groups
from policyserve.dialects.action_groups import ALONE


def names_of(spec: PolicySpec) -> list[str]:
    """The parts of a policy's actions, in their order."""
    return list(action_groups.groups_of(spec.metadata)) or [ALONE]


def parts_of(actions: Array, spec: PolicySpec, has_batch: bool) -> Mapping[str, Array]:
    """The parts of an answer, (B, T, width) each, of the actions' own dtype.

    has_batch: the actions have the client's batch axis. Raises PolicyFailed where the widths are no action's.
    """
    rows = _with_axes(actions, spec, has_batch)
    groups = action_groups.groups_of(spec.metadata)
    return action_groups.split(rows, groups) if groups else {ALONE: rows}


def squeezed(array: Array) -> Array:
    """The array without its axes of length one, as N1.5's server answers who sends no batch."""
    return array.squeeze()


def as_float32(array: Array) -> Array:
    """The array as N1.6 and N1.7 answer it; raises PolicyFailed for what float32 does not hold."""
    with np.errstate(all="ignore"):  # a float64 beyond float32 becomes inf: told below
        made: Array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(made).all():
        raise PolicyFailed("an action is beyond what float32 holds")
    return made


def _with_axes(actions: Array, spec: PolicySpec, has_batch: bool) -> Array:
    """Actions as (B, T, D): what the policy has no axis for has length one."""
    if spec.action is None:  # nothing says which axis is which: (D,), (T, D), (B, T, D)
        rows = actions.reshape((1,) * (3 - actions.ndim) + actions.shape) if actions.ndim < 3 else actions
        return rows.reshape((*rows.shape[:2], -1)) if rows.size else rows
    before = actions.ndim - len(spec.action.shape)
    batch = actions.shape[:1] if has_batch else (1,)
    steps = actions.shape[before - 1 : before] if spec.horizon is not None else (1,)
    return actions.reshape((*batch, *steps, prod(actions.shape[before:])))
