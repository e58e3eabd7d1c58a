"""Wire dialects: bytes to messages and back, one module per family of clients."""

from __future__ import annotations

from policyserve.core.dialect import Dialect
from policyserve.core.errors import ConfigError
from policyserve.dialects.vibe_rl import VibeRL

_DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (VibeRL(),)}


def names() -> tuple[str, ...]:
    """The dialects that exist, in no special order."""
    return tuple(_DIALECTS)


def by_name(name: str) -> Dialect:
    """Find a dialect; raises ConfigError that lists the known ones."""
    if name not in _DIALECTS:
        raise ConfigError(f"dialect: expected one of {', '.join(_DIALECTS)}, got {name!r}")
    return _DIALECTS[name]


def for_path(path: str) -> Dialect | None:
    """The dialect that a URL's path names (`/vibe_rl`), or None for any other path."""
    return _DIALECTS.get(path.strip("/"))
