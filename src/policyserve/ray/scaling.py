"""How many replicas the load asks for: what Serve's controller calls instead of its own rule. Pure.

Serve's counts the calls that go through it. Groups that come to replicas by TCP do not.
"""

from __future__ import annotations

from typing import Any

GROUPS = "groups"  # what a replica calls the number of those that it has


def by_groups(context: Any) -> tuple[float, dict[str, Any]]:
    """The replicas that it takes to have `target_ongoing_requests` groups in each; context: Serve's.

    Serve holds it within the bounds and waits the delays.
    """
    told = (context.aggregated_metrics or {}).get(GROUPS, {})
    return sum(told.values()) / context.config.target_ongoing_requests, {}
