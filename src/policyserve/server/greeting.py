"""How a session begins: the dialect that its path names, its greeting, and the wait for its first frame. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve import dialects
from policyserve.core.dialect import Dialect
from policyserve.core.session import Session
from policyserve.core.spec import PolicySpec
from policyserve.core.version import VERSION
from policyserve.server.config import ServerConfig


def dialect_of(path: str, config: ServerConfig) -> Dialect | None:
    """The dialect of a connection to `path`; None: its first frame tells."""
    pinned = None if config.dialect == "auto" else dialects.by_name(config.dialect)
    return dialects.for_path(path) or pinned


def patience_s(session: Session, spec: PolicySpec, config: ServerConfig) -> float | None:
    """How long to wait for a session's first frame; None where the server has the first word."""
    if session.heard:
        return None
    if session.dialect is not None:
        return None if session.dialect.greets else config.first_frame_timeout_s
    home = spec.dialect and dialects.by_name(spec.dialect)
    return config.hello_grace_s(client_first=bool(home and not home.greets))


def metadata_of(spec: PolicySpec) -> Mapping[str, Any]:
    """What a greeting tells: what the policy declares, its spec, and which server this is."""
    return {**spec.metadata, "spec": spec.describe(), "policyserve": VERSION}
