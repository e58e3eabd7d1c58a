"""How many replicas the load asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from policyserve.ray.scaling import by_groups


@pytest.mark.parametrize(
    ("told", "expected"),
    [({"groups": {"a": 3.0, "b": 5.0}}, 4.0), ({"groups": {}}, 0.0), ({}, 0.0), (None, 0.0)],
)
def test_so_many_that_each_has_the_groups_that_are_aimed_at(told: Any, expected: float) -> None:
    context = SimpleNamespace(aggregated_metrics=told, config=SimpleNamespace(target_ongoing_requests=2.0))
    assert by_groups(context) == (expected, {})
