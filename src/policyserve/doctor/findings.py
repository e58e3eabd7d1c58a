"""What the doctor finds: one line for each check, and what all of them together mean. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from policyserve.core.printable import one_line
from policyserve.core.version import VERSION

Verdict = Literal["ok", "warning", "broken"]
STATUS: Mapping[Verdict, int] = {"ok": 0, "warning": 1, "broken": 2}
CHECKS = (
    *("name", "connection", "tls", "handshake", "proxy", "health", "readiness", "dialect", "spec"),
    *("frame", "request", "answer", "round trip", "images"),
)
FORMAT = 1  # of as_json(): it rises when a key goes or changes its meaning
_LONGEST = 400


@dataclass(frozen=True)
class Finding:
    """One check of `CHECKS`. found: what is so, in one line or several. cure: what to do. figures: for programs."""

    check: str
    verdict: Verdict
    found: str
    cure: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Diagnosis:
    """All that was found of the server at `url`, which shows no key."""

    url: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst one."""
        found = {finding.verdict for finding in self.findings}
        return "broken" if "broken" in found else "warning" if "warning" in found else "ok"

    @property
    def status(self) -> int:
        """The exit status: 0, 1 where there are warnings, 2 where something is broken."""
        return STATUS[self.verdict]

    def count(self, verdict: Verdict) -> int:
        """How many findings are so."""
        return sum(finding.verdict == verdict for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The same for programs; docs/doctor.md says what each key holds."""
        findings = [
            {
                "check": finding.check,
                "verdict": finding.verdict,
                "found": finding.found,
                "cure": finding.cure,
                "figures": dict(finding.figures),
            }
            for finding in self.findings
        ]
        told = {"url": self.url, "verdict": self.verdict, "status": self.status, "findings": findings}
        return {"format": FORMAT, "policyserve": VERSION, **told}


def ok(check: str, found: str, **figures: Any) -> Finding:
    """All is well with it."""
    return Finding(check, "ok", found, "", figures)


def warning(check: str, found: str, cure: str, **figures: Any) -> Finding:
    """A robot can be served, and somebody should look at it; or it could not be checked."""
    return Finding(check, "warning", found, cure, figures)


def broken(check: str, found: str, cure: str, **figures: Any) -> Finding:
    """No robot is served so."""
    return Finding(check, "broken", found, cure, figures)


def without(finding: Finding, secrets: Iterable[str]) -> Finding:
    """The finding as it may be shown: no secret in it, no control character, no endless text of the server's."""

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "…")
        return "\n".join(one_line(line, _LONGEST) for line in text.split("\n"))

    return replace(
        finding, found=clean(finding.found), cure=clean(finding.cure), figures=_clean(finding.figures, clean)
    )


def _clean(value: Any, clean: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _clean(inner, clean) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(inner, clean) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):  # JSON has none of these
        return None
    return value if value is None or isinstance(value, (bool, int, float)) else clean(str(value))
