"""What was found out, as people read it: the start screen's rows, and a few more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policyserve.bench.machine import counted
from policyserve.bench.payloads import told_bytes
from policyserve.cli.foreground.start_screen import Screen
from policyserve.cli.inspection.facts import Facts
from policyserve.core.printable import some_of
from policyserve.core.spec import PolicySpec

_SHORT = 24  # letters of a fact that is told with its name
_MOST = 24  # facts


def lines(facts: Facts, screen: Screen) -> Iterator[str]:
    """What can be served, in the columns of a terminal."""
    yield from screen.title(facts.title)
    if not facts.is_server:
        yield from screen.row("from", screen.path(facts.origin))
    yield from screen.row("kind", _kind(facts))
    if facts.size_bytes is not None:
        yield from screen.row("size", f"{told_bytes(facts.size_bytes)} in {counted(facts.files, 'file')}")
    if facts.spec is None:
        yield from screen.row("takes", "not told: only servers of ours tell a spec")
    else:
        yield from screen.takes(facts.spec)
        yield from screen.gives(facts.spec)
        if facts.spec.aliases:
            yield from screen.row("also", *(f"{name} for {path}" for name, path in facts.spec.aliases.items()))
    if facts.is_server:
        yield from screen.row("state", facts.remembered.told)
    elif facts.spec is not None:
        yield from screen.row("state", _state(facts))
        yield from screen.row("batch", _batch(facts.spec))
    if facts.metadata:
        yield from screen.row("tells", ", ".join(_told(facts.metadata)))


def _kind(facts: Facts) -> str:
    if facts.is_server:
        return f"{facts.origin}, which speaks {some_of(facts.dialects)}"
    told = f", {facts.taken_for}" if facts.taken_for else ""
    return "an object of your own" if facts.kind == "object" else f"{facts.kind}{told}"


def _state(facts: Facts) -> str:
    kept = facts.remembered
    if not kept.kept or kept.size_bytes is None:
        return kept.told
    size = f"{told_bytes(kept.size_bytes)} " if kept.size_bytes else ""
    return f"{size}of each session: {kept.told}"


def _batch(spec: PolicySpec) -> str:
    calls = "one session a call" if spec.max_batch == 1 else f"up to {spec.max_batch} sessions a call"
    own = "no client's own batch" if not spec.max_client_batch else f"a client's own of up to {spec.max_client_batch}"
    where = "in the event loop" if spec.inline else "in a thread of its own"
    return f"{calls}, {where}; {own}"


def _told(metadata: Mapping[str, Any], is_inner: bool = False) -> Iterator[str]:
    """The facts that its greeting has, short ones with what they are; a map's own where it is not within another."""
    for number, (key, value) in enumerate(metadata.items()):
        if number == _MOST:
            yield f"and {len(metadata) - _MOST} more"
            return
        if isinstance(value, Mapping) and value and not is_inner:
            yield f"{key} ({', '.join(_told(value, is_inner=True))})"
        elif value is not None and not (isinstance(value, str) and not value):
            is_short = isinstance(value, (str, bool, int, float)) and len(str(value)) <= _SHORT
            yield f"{key} {value}" if is_short else key
