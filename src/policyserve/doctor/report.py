"""The findings as people read them: a sign, the check, what is so, and behind an arrow what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from policyserve.doctor.findings import CHECKS, Diagnosis, Finding, Verdict

SIGNS: Mapping[Verdict, str] = {"ok": "✓", "warning": "!", "broken": "✗"}
COLOURS: Mapping[Verdict, Literal["green", "yellow", "red"]] = {"ok": "green", "warning": "yellow", "broken": "red"}
_WIDTH = max(map(len, CHECKS))
INDENT = _WIDTH + 4
ARROW = "→"


def rows(finding: Finding) -> Iterator[tuple[str, str, str]]:
    """A finding's texts with what stands before them: (before, before the lines that follow it, text)."""
    before, blank = f"{SIGNS[finding.verdict]} {finding.check:{_WIDTH}}  ", " " * INDENT
    first, *more = finding.found.split("\n")
    yield before, blank, first
    for line in more:
        yield blank, blank + "  ", line
    if finding.cure:
        yield f"{blank}{ARROW} ", f"{blank}  ", finding.cure


def last_line(diagnosis: Diagnosis) -> str:
    """What all of it means."""
    counts = {verdict: diagnosis.count(verdict) for verdict in SIGNS}
    told = ", ".join(
        f"{count} {name}"
        for count, name in (
            (counts["broken"], "failed"),
            (counts["warning"], "to look at"),
            (counts["ok"], "passed"),
        )
        if count
    )
    word = {"ok": "healthy", "warning": "not all is well", "broken": "broken"}[diagnosis.verdict]
    return f"{word}: {told}"
