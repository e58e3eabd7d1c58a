"""What the server says of itself: the family whose clients it serves, and its policy's spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from policyserve import dialects
from policyserve.bench.tally import first_line
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, PolicyserveError, RemoteError, WireError
from policyserve.core.examples import spec_of
from policyserve.core.printable import some_of
from policyserve.core.spec import PolicySpec
from policyserve.dialects.recognition import family_of_greeting
from policyserve.doctor.findings import Finding, broken, ok, warning
from policyserve.doctor.server import Examined, without_place

_GREETING_S = 3.0  # an `auto` server greets a client that stays silent after 2 s at the latest
_OURS = "policyserve"
_MOST_LINES = 12


@dataclass(frozen=True)
class Seen:
    """What a server showed of itself. dialect: to ask in. spec: None where it tells none. metadata: its greeting."""

    dialect: str
    metadata: Mapping[str, Any]
    spec: PolicySpec | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is a policyserve server."""
        return _OURS in self.metadata


def greeting(server: Examined) -> tuple[list[Finding], Seen | None]:
    """Find out which dialect answers, and read the spec; None where nobody knows how to ask."""
    wanted = _wanted(server)
    try:
        metadata = _metadata(server, wanted)
    except WireError as error:
        cure = "another program may have this port: compare it with what the server prints"
        return [broken("dialect", f"it greets as no policy server does: {error}", cure)], None
    except (ConnectionLost, DeadlineExceeded) as error:
        cure = "look at the server's terminal: it ends or holds up connections"
        return [broken("dialect", without_place(first_line(str(error))), cure)], None
    except RemoteError as error:
        cure = "its log says why; `/openpi`, `/wall_x` or `/vibe_rl` behind the URL names a dialect"
        return [broken("dialect", f"its first word is an error: {first_line(str(error))}", cure)], None
    if metadata is None:
        return _silent(server, wanted)
    return _greeted(server, wanted, metadata)


def _wanted(server: Examined) -> str:
    """The dialect that is asked for: by --dialect, or the URL's path; `auto` for none."""
    named = dialects.for_path(urlsplit(server.address.http_url).path)
    return server.dialect if server.dialect != "auto" or named is None else named.name


def _metadata(server: Examined, wanted: str) -> Mapping[str, Any] | None:
    """The greeting, which openpi and Wall-X's clients read alike; None where none comes.

    A server of ours greets nobody at the path /vibe_rl, and tells its spec at the others.
    """
    asked = server if wanted != "vibe_rl" else replace(server, url=_without_path(server.url))
    try:
        spoken = wanted if wanted not in ("auto", "vibe_rl") else "openpi"
        with asked.client(spoken, min(server.timeout_s, _GREETING_S)) as client:
            return client.metadata
    except DeadlineExceeded as error:
        if "handshake" in str(error):
            raise
        return None


def _without_path(url: str) -> str:
    text = url.strip()
    return text.removesuffix("/").removesuffix("/vibe_rl").removesuffix(":")


def _silent(server: Examined, wanted: str) -> tuple[list[Finding], Seen | None]:
    waited = f"{min(server.timeout_s, _GREETING_S):g} s"
    if wanted in ("auto", "vibe_rl"):
        told = f"it waits for the client to speak first ({waited}), as vibe_rl's servers do"
        return [ok("dialect", told, family="vibe_rl", is_policyserve=False)], Seen("vibe_rl", {})
    told = f"no greeting came within {waited}, and {wanted}'s clients wait for one"
    cure = "its policy may still be loading, or it is a server of vibe_rl's family: --dialect vibe_rl"
    return [broken("dialect", told, cure)], None


def _greeted(server: Examined, wanted: str, metadata: Mapping[str, Any]) -> tuple[list[Finding], Seen | None]:
    family, is_ours = family_of_greeting(metadata), _OURS in metadata
    found = [_family(wanted, family, metadata)]
    if found[0].verdict == "broken":
        return found, None
    spoken = family if wanted == "auto" else wanted
    described = metadata.get("spec")
    try:
        spec = spec_of(described) if isinstance(described, Mapping) else None
    except PolicyserveError as error:
        told = f"the greeting's spec cannot be read: {error}"
        return [*found, warning("spec", told, "the server is of another version: update one of both")], Seen(spoken, {})
    found.append(_spec(metadata, spec, is_ours))
    return found, Seen(spoken, metadata, spec)


def _family(wanted: str, family: str, metadata: Mapping[str, Any]) -> Finding:
    is_ours = _OURS in metadata
    figures = {"family": family, "is_policyserve": is_ours}
    if is_ours:
        told = f"policyserve {metadata[_OURS]}: it speaks {some_of(dialects.names())}"
        return ok("dialect", told, **figures, version=metadata[_OURS])
    if wanted == "vibe_rl":
        told = f"it greets, as {family}'s servers do, and vibe_rl's clients would take that for an action"
        return broken("dialect", told, f"use a client of {family}'s: --dialect {family}", **figures)
    if wanted not in ("auto", family):
        told = f"it greets as {family}'s servers do, and {wanted} was asked for"
        return warning("dialect", told, f"try --dialect {family}, or another path in the URL", **figures)
    return ok("dialect", f"it greets as {family}'s servers do", **figures)


def _spec(metadata: Mapping[str, Any], spec: PolicySpec | None, is_ours: bool) -> Finding:
    if spec is not None and spec.observation:
        return ok("spec", "\n".join(_lines(spec)), spec=spec.describe())
    if is_ours:
        cure = "give the policy a spec, so that mistakes are told (docs/writing_a_policy.md)"
        return warning("spec", "the policy has none: the server cannot say what an observation lacks", cure, spec=None)
    keys = ", ".join(map(str, list(metadata)[:8])) or "no keys"
    return ok("spec", f"not told: only servers of ours have one; the greeting has {keys}", spec=None)


def _lines(spec: PolicySpec) -> Iterator[str]:
    """One for each value: its path, and what it has to be."""
    width = min(max(map(len, spec.leaves), default=0), 28)
    for number, (path, leaf) in enumerate(spec.leaves.items()):
        if number == _MOST_LINES:
            yield f"and {len(spec.leaves) - _MOST_LINES} more"
            break
        yield f"{path:{width}}  {leaf}" + (", may be left out" if leaf.optional else "")
    if spec.action is not None:
        steps = "" if spec.horizon is None else f"{spec.horizon} steps of "
        yield f"{'-> actions':{width}}  {steps}{spec.action}"
