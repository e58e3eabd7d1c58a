"""Colours of a terminal, for people: none in a pipe, none where NO_COLOR is set or the terminal is dumb."""

from __future__ import annotations

import os
from typing import Literal, TextIO

Colour = Literal["red", "yellow", "green", "cyan", "bold", "dim"]
_CODES = {"red": 31, "yellow": 33, "green": 32, "cyan": 36, "bold": 1, "dim": 2}


def has_colours(stream: TextIO) -> bool:
    """Whether what is written there may be coloured (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def coloured(text: str, colour: Colour, stream: TextIO) -> str:
    """The text in this colour, for this stream; as it is where there are no colours."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if text and has_colours(stream) else text
