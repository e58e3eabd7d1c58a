"""Limits on what one message may make a server build, which the size of the message does not bound.

An empty map is one byte on the wire and sixty here, an array of no numbers takes as long to read as one of a camera's,
and a picture of 1 x 20,000,000 pixels is small until something resizes it. By default what a message holds is read and
checked, or refused, within 5 ms of everybody's event loop and 2 ms more for each MiB (tests/fuzz/cost.py measures it).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from policyserve.core.settings import Settings

# Items that an entry of a map, a text, a bin, a map and a list count as: each takes that much to read and to keep.
HEAVY = 6
_SHALLOWEST = 3  # where a shape stands in vibe_rl's messages: with less there would be no arrays
_SHORTEST_KEY = 16  # the keys that describe arrays have up to 13 letters
_DEEPEST = 64  # readers call themselves at each level, up to four calls deep, and Python ends at a thousand


@dataclass(frozen=True, kw_only=True)
class WireLimits(Settings):
    """How much one message may hold. Raises ConfigError that names the field, its value and the bound.

    Each entry of a map, each text, bin, map and list counts as six items: a list of numbers is read much faster than
    anything else. An array as openpi's clients write it counts as 70. Reading one takes microseconds of everybody's
    event loop, and robots send a dozen. 64 MiB hold a picture of 22 million pixels in colour, so that by default
    max_image_mpixels bounds gray pictures, and all where a server takes larger messages.
    """

    max_depth: int = 8  # the most levels of maps and lists in one message
    max_items: int = 16_384  # the most list items in one message; map entries, texts, bins, maps, lists: 6 each
    max_arrays: int = 200  # the most arrays and NumPy scalars in one message
    max_key: int = 128  # the most bytes of a map's key, in UTF-8
    max_image_side: int = 8192  # the most pixels of an image's height, and of its width
    max_image_mpixels: float = 32.0  # the most pixels of an image, in millions
    max_text: int = 100_000  # the most characters of a text

    def check(self) -> None:
        super().check()
        self.require("max_depth", _SHALLOWEST <= self.max_depth <= _DEEPEST, f"{_SHALLOWEST} … {_DEEPEST}")
        for name in ("max_items", "max_arrays", "max_image_side", "max_text"):
            self.require(name, getattr(self, name) >= 1, "1 or more")
        self.require("max_key", self.max_key >= _SHORTEST_KEY, f"{_SHORTEST_KEY} or more")
        self.require("max_image_mpixels", self.max_image_mpixels > 0, "more than 0")

    def with_items(self, most: int) -> WireLimits:
        """The same limits for a message of at most so many items."""
        same = {one.name: getattr(self, one.name) for one in fields(WireLimits)}
        return WireLimits(**{**same, "max_items": min(self.max_items, most)})


DEFAULT_LIMITS = WireLimits()
# Of what a server sends, as this package's clients take it: 16,384 entries, and keys and texts of any length.
REPLY_LIMITS = WireLimits(max_items=HEAVY * 32_768, max_key=1 << 30, max_text=1 << 30)
