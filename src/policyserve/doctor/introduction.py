"""The checks up to a server's greeting alone, for whoever wants to know what it is and not whether all is well."""

from __future__ import annotations

from collections.abc import Iterator

from policyserve.doctor.findings import Finding, without
from policyserve.doctor.greeting import Seen, greeting
from policyserve.doctor.opening import opening
from policyserve.doctor.reaching import reaching
from policyserve.doctor.server import Examined


def introduced(server: Examined) -> tuple[list[Finding], Seen | None]:
    """What was found, the last one being what is broken where there is nothing seen; no key is in it."""
    findings = list(_before(server))
    seen: Seen | None = None
    if findings[-1].verdict != "broken":
        said, seen = greeting(server)
        findings += said
    return [without(finding, server.secrets) for finding in findings], seen


def _before(server: Examined) -> Iterator[Finding]:
    """Reaching it, and the handshake; ends behind the first that is broken."""
    for finding in reaching(server):
        yield finding
        if finding.verdict == "broken":
            return
    yield opening(server)[0]
