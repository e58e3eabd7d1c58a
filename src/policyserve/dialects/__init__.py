"""Wire dialects: bytes to messages and back, one module per family of clients."""

from __future__ import annotations

from policyserve.core.dialect import Dialect
from policyserve.core.errors import ConfigError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Frame
from policyserve.dialects.marked_arrays import spelling_of
from policyserve.dialects.openpi import OpenPI
from policyserve.dialects.unpacking import unpack
from policyserve.dialects.vibe_rl import VibeRL
from policyserve.dialects.wall_x import WallX

_DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (OpenPI(), WallX(), VibeRL())}


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


class Auto:
    """Finds a connection's dialect by its first frame (the protocol DialectChoice)."""

    greeter = _DIALECTS["openpi"]  # Wall-X's clients read the same bytes

    def settle(self, frame: Frame, greeted: bool, limits: WireLimits = DEFAULT_LIMITS) -> Dialect:
        """By content; a frame that tells nothing is vibe_rl's if it came unasked, openpi's if after the greeting."""
        return _DIALECTS[_name_in(frame, limits) or ("openpi" if greeted else "vibe_rl")]


def _name_in(frame: Frame, limits: WireLimits) -> str | None:
    try:
        message = unpack(frame, limits=limits)
    except WireError:
        return None
    if isinstance(message, dict) and "__meta__" in message:
        return "vibe_rl"
    return spelling_of(message)
