"""Values of metadata are the same if a client could not tell them apart."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.sameness import is_same
from policyserve.core.spec import ArraySpec


@pytest.mark.parametrize(
    "value",
    [1, "a", None, float("nan"), [1, {"a": (2, 3)}], np.ones(5000), {"a": np.zeros((2, 0))}, ArraySpec((3,), doc="x")],
)
def test_a_value_is_like_itself(value: object) -> None:
    assert is_same(value, value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ({"a": 1}, {"b": 1}),
        ([1, 2], [1]),
        (np.ones(3, np.float32), np.ones(3)),
        (np.ones(5000), np.where(np.arange(5000) == 2500, 2.0, 1.0)),
        (ArraySpec((3,)), ArraySpec((4,))),
    ],
)
def test_values_that_differ_anywhere_are_not_the_same(one: object, other: object) -> None:
    assert not is_same(one, other)
