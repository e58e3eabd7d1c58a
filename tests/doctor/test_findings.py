"""What findings mean together, and what of them may be shown."""

from __future__ import annotations

import json

import numpy as np
import pytest

from policyserve.doctor.findings import Diagnosis, Finding, broken, ok, warning, without

FINE, ODD, BAD = ok("name", "a"), warning("proxy", "b", "c"), broken("answer", "d", "e")


@pytest.mark.parametrize(
    ("findings", "verdict", "status"),
    [([], "ok", 0), ([FINE], "ok", 0), ([ODD, FINE], "warning", 1), ([FINE, BAD, ODD], "broken", 2)],
)
def test_the_worst_finding_is_the_verdict(findings: list[Finding], verdict: str, status: int) -> None:
    diagnosis = Diagnosis("ws://robot", findings)
    assert (diagnosis.verdict, diagnosis.status) == (verdict, status)


def test_programs_get_the_keys_that_the_page_promises() -> None:
    told = Diagnosis("ws://robot", [ok("connection", "fine", connect_ms=1.0), BAD]).as_json()
    assert list(told) == ["format", "policyserve", "url", "verdict", "status", "findings"]
    assert told["findings"][0] == {
        "check": "connection",
        "verdict": "ok",
        "found": "fine",
        "cure": "",
        "figures": {"connect_ms": 1.0},
    }


def test_no_secret_and_no_control_character_of_a_servers_is_shown() -> None:
    figures = {"stage": "k3y", "names": ["k3y\x1b"], "k3y": np.float32(1), "none": float("nan")}
    shown = without(Finding("name", "ok", "the k3y\nof \x1b[31mred", "say k3y", figures), ["k3y"])
    assert shown.found == "the …\nof \\x1b[31mred"
    assert shown.cure == "say …"
    assert shown.figures == {"stage": "…", "names": ["…\\x1b"], "…": "1.0", "none": None}
    assert "k3y" not in json.dumps(Diagnosis("ws://robot", [shown]).as_json())
