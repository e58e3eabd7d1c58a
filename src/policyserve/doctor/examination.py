"""All checks in their order; one that is broken ends those that cannot be made without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policyserve.core.messages import Observation
from policyserve.doctor.asking import asking, request_for
from policyserve.doctor.comparing import Fault, faults
from policyserve.doctor.findings import Finding, broken, ok, warning, without
from policyserve.doctor.given import Frame
from policyserve.doctor.greeting import Seen, greeting
from policyserve.doctor.opening import opening, proxy
from policyserve.doctor.pages import pages
from policyserve.doctor.reaching import reaching
from policyserve.doctor.server import Examined


@dataclass(frozen=True)
class Brought:
    """What the user gave besides the URL."""

    example: Observation | None = None
    example_name: str = ""
    frame: Frame | None = None
    frame_name: str = ""


def examine(server: Examined, brought: Brought) -> Iterator[Finding]:
    """Make one check after the other; each is given as soon as it is made, without any key."""
    secrets = server.secrets
    for finding in _examine(server, brought):
        yield without(finding, secrets)


def _examine(server: Examined, brought: Brought) -> Iterator[Finding]:
    connect_ms = 0.0
    for finding in reaching(server):
        yield finding
        connect_ms = finding.figures.get("connect_ms", connect_ms)
        if finding.verdict == "broken":
            return
    shaken, opened = opening(server)
    yield shaken
    if opened is None:
        return
    yield proxy(opened, connect_ms)
    for finding in pages(server):
        yield finding
        if finding.figures.get("is_ready") is False:
            return
    said, seen = greeting(server)
    yield from said
    if seen is not None:
        yield from _asked(server, seen, brought, opened.ping_ms)


def _asked(server: Examined, seen: Seen, brought: Brought, ping_ms: float | None) -> Iterator[Finding]:
    if brought.frame is not None:
        yield from frame_findings(brought.frame, seen)
    given, source = brought.example, brought.example_name
    if given is None and brought.frame is not None and not _has_spec(seen):
        given, source = brought.frame.observation, brought.frame_name
    made, asked = request_for(seen, given, source)
    yield made
    if asked is not None:
        yield from asking(server, seen, asked, ping_ms)


def _has_spec(seen: Seen) -> bool:
    return seen.spec is not None and seen.spec.observation is not None


def frame_findings(frame: Frame, seen: Seen) -> Iterator[Finding]:
    """What the server would say of a client's recorded message, all of it at once."""
    told = f"{frame.size} bytes of {frame.dialect}"
    if frame.observation is None:
        cure = "record one whole message, as the client hands it to its WebSocket; --dialect names who wrote it"
        yield broken("frame", f"{told}: {frame.error}", cure)
        return
    if not seen.is_ours and frame.dialect != seen.dialect:
        cure = f"use a client of {seen.dialect}'s, or a server of ours, which speaks both"
        yield broken("frame", f"{told}, and the server speaks {seen.dialect}", cure)
        return
    if seen.spec is None or seen.spec.observation is None:
        told = f"{told}; it cannot be compared: the server tells no spec"
        yield warning("frame", told, "a server of ours tells one, where its policy has one")
        return
    found = faults(seen.spec, frame.observation)
    for fault in found:
        yield _fault(fault)
    if not found:
        yield ok("frame", f"{told}: all its keys are as the spec has them")


def _fault(fault: Fault) -> Finding:
    figures = {"path": fault.path, "expected": fault.expected, "got": fault.got}
    if fault.is_harmless:
        return warning("frame", str(fault), fault.cure, **figures)
    return broken("frame", str(fault), fault.cure, **figures)
