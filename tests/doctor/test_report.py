"""What people read."""

from __future__ import annotations

from policyserve.doctor.findings import CHECKS, Diagnosis, broken, ok, warning
from policyserve.doctor.report import INDENT, last_line, rows


def text_of(finding: object) -> list[str]:
    return [before + text for before, _, text in rows(finding)]  # type: ignore[arg-type]


def test_a_finding_has_its_sign_its_check_and_what_is_so() -> None:
    assert text_of(ok("name", "robot is 10.0.0.7")) == ["✓ name        robot is 10.0.0.7"]
    assert text_of(warning("round trip", "slow", "use a cable")) == [
        "! round trip  slow",
        "              → use a cable",
    ]


def test_further_lines_stand_below_the_first_and_the_cure_last() -> None:
    lines = text_of(broken("spec", "one\ntwo", "mend it"))
    assert lines == ["✗ spec        one", " " * INDENT + "two", " " * INDENT + "→ mend it"]


def test_every_check_fits_its_column() -> None:
    assert {text_of(ok(check, "x"))[0].index("x", 2 + len(check)) for check in CHECKS} == {INDENT}


def test_the_last_line_counts() -> None:
    findings = [ok("name", "a"), warning("proxy", "b", "c"), broken("answer", "d", "e")]
    assert last_line(Diagnosis("", findings)) == "broken: 1 failed, 1 to look at, 1 passed"
    assert last_line(Diagnosis("", findings[:2])) == "not all is well: 1 to look at, 1 passed"
    assert last_line(Diagnosis("", findings[:1])) == "healthy: 1 passed"
