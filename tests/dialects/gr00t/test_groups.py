"""Action groups: the columns of an action, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, PolicySpec
from policyserve.core.errors import PolicyFailed
from policyserve.core.policy import open_spec
from policyserve.dialects.gr00t.groups import as_float32, names_of, parts_of, squeezed


def spec_of(shape: tuple[int, ...], horizon: int | None, **modality: Any) -> PolicySpec:
    metadata = {"modality": modality} if modality else {}
    return PolicySpec("p", None, ArraySpec(shape), horizon=horizon, metadata=metadata)


def test_columns_go_to_the_groups_in_their_order() -> None:
    actions = np.arange(8, dtype=np.float32).reshape(2, 4)
    parts = parts_of(actions, spec_of((4,), 2, arm=3, gripper=1), has_batch=False)
    assert {name: part.tolist() for name, part in parts.items()} == {
        "arm": [[[0, 1, 2], [4, 5, 6]]],
        "gripper": [[[3], [7]]],
    }


@pytest.mark.parametrize(
    ("spec", "shape", "has_batch", "expected"),
    [
        (spec_of((4,), 2), (2, 4), False, (1, 2, 4)),
        (spec_of((4,), 2), (1, 4), False, (1, 1, 4)),  # one row of a chunk
        (spec_of((4,), 2), (3, 2, 4), True, (3, 2, 4)),
        (spec_of((4,), None), (4,), False, (1, 1, 4)),
        (spec_of((4,), None), (3, 4), True, (3, 1, 4)),
        (spec_of((), None), (), False, (1, 1, 1)),
        (spec_of((2, 3), 5), (5, 2, 3), False, (1, 5, 6)),
        (open_spec("any"), (4,), False, (1, 1, 4)),
        (open_spec("any"), (2, 4), False, (1, 2, 4)),
        (open_spec("any"), (), False, (1, 1, 1)),
        (open_spec("any"), (3, 2, 4), True, (3, 2, 4)),
        (open_spec("any"), (3, 2, 4, 2), True, (3, 2, 8)),
    ],
)
def test_a_policy_without_groups_has_one_with_all_axes(
    spec: PolicySpec, shape: tuple[int, ...], has_batch: bool, expected: tuple[int, ...]
) -> None:
    (part,) = parts_of(np.zeros(shape, np.float32), spec, has_batch).items()
    assert (part[0], part[1].shape) == ("action", expected)


def test_widths_that_are_not_those_of_an_action_are_the_policys_fault() -> None:
    with pytest.raises(PolicyFailed, match=r"expected groups of 4 numbers in all, got arm 4 \+ gripper 1 = 5"):
        parts_of(np.zeros((2, 4), np.float32), spec_of((4,), 2, arm=4, gripper=1), has_batch=False)


def test_the_parts_have_names() -> None:
    assert names_of(spec_of((4,), 2, arm=3, gripper=1)) == ["arm", "gripper"]
    assert names_of(spec_of((4,), 2)) == ["action"]


def test_float32_holds_what_is_answered() -> None:
    assert as_float32(np.array([1, 2])).dtype == np.float32
    with pytest.raises(PolicyFailed, match="beyond what float32 holds"):
        as_float32(np.array([1e300]))


def test_axes_of_one_go_and_all_others_stay() -> None:
    assert squeezed(np.zeros((1, 16, 1))).shape == (16,)
