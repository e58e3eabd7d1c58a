"""What can be reckoned without a run: how many edges, and how much a balancer lets pass. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from policyserve.ray.asking import SELDOM_S
from policyserve.ray.lane_count import lane_count

from .costs import Costs
from .parts import Shape


def edge_s(shape: Shape, costs: Costs, group: float) -> float:
    """An edge's work for one request, in groups of so many."""
    return costs.edge_request_s + shape.request_bytes * costs.edge_byte_s + costs.edge_call_s / group


def requests_of_edge(shape: Shape, costs: Costs, busy: float) -> float:
    """Requests a second that keep an edge busy for such a share of its time: its lanes send so many groups, no more."""
    way_s = costs.edge_call_s + costs.replica_call_s + 2 * costs.hop_s + shape.batch_s
    groups_s = lane_count(shape.replicas, shape.config, shape.batch_s) / way_s
    alone_s = edge_s(shape, costs, 1.0)
    if busy / alone_s <= groups_s:
        return busy / alone_s
    return (busy - groups_s * costs.edge_call_s) / (alone_s - costs.edge_call_s)


def edges_for(shape: Shape, costs: Costs, busy: float) -> int:
    """The edges that it takes if each may be busy for such a share of its time."""
    return max(1, ceil(shape.sessions / shape.every_s / requests_of_edge(shape, costs, busy)))


def requests_at_balancer(request_bytes: int, costs: Costs) -> float:
    """Requests a second that fill the balancer's network card, in or out."""
    return costs.balancer_gbit * 1e9 / 8 / max(request_bytes, costs.answer_bytes)


def control_share(replicas: int, edges: int, costs: Costs) -> float:
    """The controller's work a second, of a core; more than 1 is more than it can do.

    Its passes are followed by a pause, so that they take what is left and come more rarely; what edges ask does not.
    """
    asked = edges * (costs.status_s + costs.status_replica_s * replicas) / SELDOM_S
    pass_s = costs.controller_pass_s + costs.controller_replica_s * replicas
    left = max(1.0 - asked, 0.0)
    return asked + pass_s / (pass_s / left + costs.controller_pause_s) if left else asked


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
