"""How many lanes an edge has: some for each replica, and no more than its own work leaves it time for. Pure.

A lane sends one group after the other, so an edge sends as many groups a second as it has lanes, divided by how long a
replica works at one. Each costs the edge the same, whatever is in it: with more lanes than it can serve its groups are
of one request, and all of them wait for the edge. With fewer than its replicas need, these wait for the edge's groups.
"""

from __future__ import annotations

from policyserve.ray.config import ClusterConfig

# 0.7 of an edge's core, where a group of one request costs it 0.36 ms over TCP and 3.9 ms through Ray
# (docs/cluster.md). It sends fewer, since a group's way takes time as well, and has the rest for larger groups. Several
# policies of one edge have as many each as if they were alone: they are seldom all busy.
GROUPS_PER_S = {"tcp": 1900.0, "handle": 190.0}
_LEAST = 2  # with one, a request that comes as the group has left waits for two
_FIRST = 8  # while no group has been answered


def lane_count(replicas: int, config: ClusterConfig, work_s: float | None) -> int:
    """The lanes of an edge. work_s: how long a replica usually works at a group; None: that is not known yet."""
    most = config.max_lanes
    if most is None:
        most = _FIRST if work_s is None else max(_LEAST, round(GROUPS_PER_S[config.carrier] * work_s))
    return min(max(replicas, 1) * config.lanes_per_replica, most)
