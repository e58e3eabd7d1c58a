"""How much one message may make a server build: what the size of its bytes does not bound.

An empty map is one byte on the wire and sixty here, an array of no numbers takes as long to read as one of a camera's,
and a picture of 1 x 20,000,000 pixels is small until something resizes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyserve.core.errors import ConfigError

_SHALLOWEST = 3  # where a shape stands in vibe_rl's messages: with less there would be no arrays
_DEEPEST = 64  # readers call themselves at each level, up to four calls deep, and Python ends at a thousand


@dataclass(frozen=True)
class WireLimits:
    """Bounds on a request. Raises ConfigError that names the field, its value and the bound.

    max_depth: levels of maps and lists inside the outermost. max_items: map entries and list items of a message, each
    map and list counted as one more. max_arrays: arrays and NumPy scalars of a message; reading one takes microseconds
    of everybody's event loop, and robots send a dozen. max_image_side: pixels of an image's height or width.
    max_image_mpixels: millions of them in an image; 64 MiB hold 22 in colour, so by default this bounds gray ones and
    servers that take larger messages. max_text: characters.
    """

    max_depth: int = 8
    max_items: int = 16_384
    max_arrays: int = 1024
    max_image_side: int = 8192
    max_image_mpixels: float = 32.0
    max_text: int = 100_000

    def __post_init__(self) -> None:
        self._check("max_depth", _SHALLOWEST <= self.max_depth <= _DEEPEST, f"{_SHALLOWEST} … {_DEEPEST}")
        for name in ("max_items", "max_arrays", "max_image_side", "max_text"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        self._check("max_image_mpixels", self.max_image_mpixels > 0, "more than 0")

    def _check(self, name: str, is_fine: bool, bound: str) -> None:
        if not is_fine:
            raise ConfigError(f"{name}: expected {bound}, got {getattr(self, name)!r}")


DEFAULT_LIMITS = WireLimits()
