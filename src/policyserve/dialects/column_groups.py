"""Which columns of an action are what, for dialects whose clients read them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.errors import WireError

ARM = "arm_joint_state"
_JOINTS = (ARM, "ee_joint_state")  # an arm's columns, in this order
_ARMS = ("", "left_", "right_")


def check_groups(declared: Any, path: str) -> tuple[tuple[str, int], ...]:
    """The names and widths that a policy declares, in order: {"actions": {"arm_joint_state": 7, "ee_joint_state": 1}}.

    Empty where it declares none. Raises WireError that names the path.
    """
    groups = declared.get("actions", {}) if isinstance(declared, Mapping) else declared
    expected = 'names and widths, such as {"arm_joint_state": 7, "ee_joint_state": 1}'
    if not isinstance(groups, Mapping):
        raise WireError(path, expected, type(groups).__name__)
    for name, width in groups.items():
        if not isinstance(name, str) or type(width) is not int or width < 1:
            raise WireError(path, expected, f"{name!r:.40}: {width!r:.40}")
    return tuple(groups.items())


def groups_of_state(state: Any) -> Mapping[str, int]:
    """The joint states of an observation and their widths, arm by arm; empty where it has none.

    A policy of joint positions mostly answers in the order and size of what it was shown.
    """
    if not isinstance(state, Mapping):
        return {}
    names = [arm + joint for arm in _ARMS for joint in _JOINTS]
    return {name: state[name].size for name in names if isinstance(state.get(name), np.ndarray)}
