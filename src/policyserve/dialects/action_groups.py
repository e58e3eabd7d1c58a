"""The parts of an action that a policy declares: an arm's joints, a gripper.

A policy's metadata names them in their order, with how many numbers each has: `modality` = {"arm": 7, "gripper": 1}.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import PolicyFailed, WireError

KEY = "modality"
ALONE = "action"  # what GR00T's clients find the whole action under, where it has no parts


def groups_of(metadata: Mapping[str, Any]) -> dict[str, int]:
    """The parts that the policy declares; empty where it declares none, or something else under that name."""
    told = metadata.get(KEY)
    if not isinstance(told, Mapping) or not told:
        return {}
    are_sizes = all(type(size) is int and size >= 1 for size in told.values())
    return {str(name): size for name, size in told.items()} if are_sizes else {}


def split(actions: Array, groups: Mapping[str, int]) -> dict[str, Array]:
    """Cut the last axis into the groups; raises PolicyFailed where they are not all of it."""
    size, wanted = actions.shape[-1] if actions.ndim else 1, sum(groups.values())
    if size != wanted or not actions.ndim:
        told = " + ".join(f"{name} {width}" for name, width in groups.items())
        raise PolicyFailed(f"{KEY}: expected groups of {size} numbers in all, got {told} = {wanted}")
    parts = np.split(actions, list(accumulate(groups.values()))[:-1], axis=-1)
    return dict(zip(groups, parts, strict=True))


def side_by_side(parts: Mapping[str, Any]) -> Array:
    """The arrays of a server's answer side by side, in their order; one alone as it is. Raises WireError."""
    arrays = {name: part for name, part in parts.items() if isinstance(part, (np.ndarray, np.generic))}
    if len(arrays) == 1:
        return np.asarray(next(iter(arrays.values())))
    try:
        found: Array = np.concatenate(list(arrays.values()), axis=-1)
    except ValueError as error:
        told = ", ".join(f"{name} {part.shape}" for name, part in arrays.items())
        raise WireError("", "arrays that can stand side by side", told[:200] or "none") from error
    return found
