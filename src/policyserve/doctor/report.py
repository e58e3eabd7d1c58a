"""The findings as people read them: a sign, the check, what is so, and behind an arrow what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from policyserve.doctor.findings import CHECKS, Diagnosis, Finding, Verdict

SIGNS: Mapping[Verdict, str] = {"ok": "✓", "warning": "!", "broken": "✗"}
COLOURS: Mapping[Verdict, Literal["green", "yellow", "red"]] = {"ok": "green", "warning": "yellow", "broken": "red"}
_WIDTH = max(map(len, CHECKS))
INDENT = _WIDTH + 4
_ARROW = "→ "


def rows(finding: Finding) -> Iterator[tuple[str, str, str]]:
    """A finding's texts with what stands before them: (before, before the lines that follow it, text)."""
    before, blank = f"{SIGNS[finding.verdict]} {finding.check:{_WIDTH}}  ", " " * INDENT
    first, *more = finding.found.split("\n")
    yield before, blank, first
    for line in more:
        yield blank, blank + "  ", line
    if finding.cure:
        yield blank + _ARROW, blank + " " * len(_ARROW), finding.cure


def last_line(diagnosis: Diagnosis) -> str:
    """What all of it means."""
    counts = {verdict: diagnosis.count(verdict) for verdict in SIGNS}
    told = ", ".join(
        f"{count} {name}"
        for count, name in (
            (counts["broken"], "broken"),
            (counts["warning"], "to look at"),
            (counts["ok"], "fine"),
        )
        if count
    )
    word = {"ok": "healthy", "warning": "it may serve", "broken": "no robot is served so"}[diagnosis.verdict]
    return f"{word}: {told}"
