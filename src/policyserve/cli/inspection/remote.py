"""What a server that runs somewhere is: its greeting is read, and nothing is asked of its policy."""

from __future__ import annotations

from policyserve import dialects
from policyserve.cli.inspection.facts import Facts
from policyserve.doctor.findings import Finding
from policyserve.doctor.introduction import introduced
from policyserve.doctor.server import Examined

_OURS = ("policyserve", "spec")  # keys of a greeting that are no policy's own


def facts_of_server(server: Examined) -> Facts:
    """Read a server's greeting; why it cannot be read is told in `refused`."""
    url = server.address.url.removesuffix("/")
    findings, seen = introduced(server)
    if seen is None:
        return Facts(url, "server", url, is_server=True, refused=_told(findings[-1]))
    spoken = tuple(dialects.names()) if seen.is_ours else (seen.dialect,)
    version = seen.metadata.get("policyserve")
    origin = f"policyserve {version}" if seen.is_ours else f"a server of {seen.dialect}'s family"
    metadata = {key: value for key, value in seen.metadata.items() if key not in _OURS}
    return Facts(url, "server", url, origin, is_server=True, spec=seen.spec, metadata=metadata, dialects=spoken)


def _told(finding: Finding) -> str:
    return f"{finding.found}; {finding.cure}" if finding.cure else finding.found
