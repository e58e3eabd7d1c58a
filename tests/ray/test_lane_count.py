"""How many lanes an edge has; benchmarks/cluster_sim.py says what that gives its robots."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.ray.config import ClusterConfig
from policyserve.ray.lane_count import GROUPS_PER_S, lane_count


def test_few_replicas_have_two_lanes_each() -> None:
    assert [lane_count(replicas, ClusterConfig(), 1.0) for replicas in (0, 1, 4)] == [2, 2, 8]


@pytest.mark.parametrize("work_s", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("carrier", ["tcp", "handle"])
def test_many_have_as_many_as_an_edge_sends_groups_while_one_is_worked_at(work_s: float, carrier: Any) -> None:
    assert lane_count(1000, ClusterConfig(carrier=carrier), work_s) == round(GROUPS_PER_S[carrier] * work_s)


def test_an_edge_has_two_for_the_quickest_policy_and_some_before_it_knows() -> None:
    assert lane_count(1000, ClusterConfig(), 0.0) == 2
    assert 2 < lane_count(1000, ClusterConfig(), None) < 20


def test_what_a_user_says_is_the_most_there_are() -> None:
    config = ClusterConfig(max_lanes=6)
    assert [lane_count(replicas, config, 0.0) for replicas in (1, 3, 100)] == [2, 6, 6]
    with pytest.raises(ConfigError, match="max_lanes: expected 1 or more, got 0"):
        ClusterConfig(max_lanes=0)
