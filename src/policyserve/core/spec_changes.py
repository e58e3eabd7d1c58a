"""What a client would notice if another policy, with another spec, took the place of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policyserve.core.spec import PolicySpec

_MOST_TOLD = 10


def spec_changes(before: PolicySpec, after: PolicySpec) -> list[str]:
    """The differences that matter to a client, at most ten, a path and what it was and is each; empty: there is none.

    Names, metadata and how many requests a batch takes are the policy's own. A larger client's batch disturbs nobody.
    """
    changes = list(_changes(before, after))
    rest = len(changes) - _MOST_TOLD
    return changes if rest <= 0 else [*changes[:_MOST_TOLD], f"and {rest} more"]


def _changes(before: PolicySpec, after: PolicySpec) -> Iterator[str]:
    if (before.observation is None) != (after.observation is None):
        yield f"observation: {_whether_open(before)}, now {_whether_open(after)}"
        return
    for path, leaf in before.leaves.items():
        if path not in after.leaves:
            yield f"{path}: {leaf}, now not there"
        elif _told(leaf) != _told(after.leaves[path]):
            yield f"{path}: {_shown(leaf)}, now {_shown(after.leaves[path])}"
    for path in after.leaves.keys() - before.leaves.keys():
        yield f"{path}: not there, now {_shown(after.leaves[path])}"
    if dict(before.aliases) != dict(after.aliases):
        yield f"aliases: {dict(before.aliases)}, now {dict(after.aliases)}"
    if _told(before.action) != _told(after.action):
        yield f"action: {before.action or 'any'}, now {after.action or 'any'}"
    if before.horizon != after.horizon:
        yield f"horizon: {before.horizon or 'none'}, now {after.horizon or 'none'}"
    if after.max_client_batch < before.max_client_batch:
        yield f"max_client_batch: {before.max_client_batch}, now {after.max_client_batch}"


def _whether_open(spec: PolicySpec) -> str:
    return "anything" if spec.observation is None else f"{len(spec.leaves)} keys"


def _told(leaf: Any) -> dict[str, Any]:
    """What of a leaf's description binds a client: all but the words about it."""
    return {} if leaf is None else {name: value for name, value in leaf.describe().items() if name != "doc"}


def _shown(leaf: Any) -> str:
    return f"{leaf}{' (optional)' if leaf.optional else ''}"
