"""Limits on what one message may make a server build, which the size of the message does not bound.

An empty map is one byte on the wire and sixty here, an array of no numbers takes as long to read as one of a camera's,
and a picture of 1 x 20,000,000 pixels is small until something resizes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyserve.core.settings import Settings

_SHALLOWEST = 3  # where a shape stands in vibe_rl's messages: with less there would be no arrays
_DEEPEST = 64  # readers call themselves at each level, up to four calls deep, and Python ends at a thousand


@dataclass(frozen=True, kw_only=True)
class WireLimits(Settings):
    """How much one message may hold. Raises ConfigError that names the field, its value and the bound.

    Each map and list counts as one item more than it has. Reading an array takes microseconds of everybody's event
    loop, and robots send a dozen. 64 MiB hold a picture of 22 million pixels in colour, so that by default
    max_image_mpixels bounds gray pictures, and all where a server takes larger messages.
    """

    max_depth: int = 8  # the most levels of maps and lists in one message
    max_items: int = 16_384  # the most map entries and list items in one message
    max_arrays: int = 1024  # the most arrays and NumPy scalars in one message
    max_image_side: int = 8192  # the most pixels of an image's height, and of its width
    max_image_mpixels: float = 32.0  # the most pixels of an image, in millions
    max_text: int = 100_000  # the most characters of a text

    def check(self) -> None:
        super().check()
        self.require("max_depth", _SHALLOWEST <= self.max_depth <= _DEEPEST, f"{_SHALLOWEST} … {_DEEPEST}")
        for name in ("max_items", "max_arrays", "max_image_side", "max_text"):
            self.require(name, getattr(self, name) >= 1, "1 or more")
        self.require("max_image_mpixels", self.max_image_mpixels > 0, "more than 0")


DEFAULT_LIMITS = WireLimits()
