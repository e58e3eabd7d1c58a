"""How texts are laid out in a terminal's columns."""

from __future__ import annotations

import os
import re
import unicodedata
from itertools import accumulate
from pathlib import Path
from typing import TextIO

_NARROWEST = 40  # columns: a window that is narrower is laid out for so many all the same
_USUAL = 80
_LEFT_OUT = "…"


def columns_of(stream: TextIO) -> int:
    """How many columns a terminal has; 80 where it does not tell."""
    try:
        told = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # no terminal, or a closed one
        return _USUAL
    return max(told, _NARROWEST) if told else _USUAL


def width_of(text: str) -> int:
    """The columns that a text takes: of most letters one, of Chinese ones two, of accents over another letter none."""
    return len(text) if text.isascii() else sum(map(_width_of_letter, text))


def padded(text: str, columns: int) -> str:
    """The text and blanks behind it."""
    return text + " " * (columns - width_of(text))


def cut(text: str, columns: int) -> str:
    """The text without what is beyond so many columns."""
    return text if width_of(text) <= columns else text[: _fitting(text, columns - 1)] + _LEFT_OUT


def cut_in_the_middle(text: str, columns: int) -> str:
    """The text without as much of its middle as is too long, so that the end of a path stays."""
    if width_of(text) <= columns:
        return text
    tail = text[len(text) - _fitting(text[::-1], columns * 2 // 3) :]
    return cut(text, columns - width_of(tail))[:-1] + _LEFT_OUT + tail


def with_short_paths(text: str, columns: int) -> str:
    """The text, in which no path takes more columns: the home directory is `~`, and of a long one the middle is out."""
    return re.sub(r"(?<!\S)[~/]\S+", lambda path: cut_in_the_middle(path.group(), columns), at_home(text))


def at_home(text: str) -> str:
    """The text with `~` for the user's home directory where a path in it begins so."""
    return re.sub(rf"(?<!\S){re.escape(str(Path.home()))}(?={re.escape(os.sep)})", "~", text)


def wrapped(text: str, columns: int) -> list[str]:
    """The text in lines of at most so many columns, broken at blanks, and in a word that is longer than a line."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(joined) <= columns:
            lines[-1] = joined
            continue
        while width_of(word) > columns:
            end = max(_fitting(word, columns), 1)
            lines.append(word[:end])
            word = word[end:]
        lines.append(word)
    return [line for line in lines if line] or [""]


def _fitting(text: str, columns: int) -> int:
    """How many letters fit."""
    return sum(width <= columns for width in accumulate(map(_width_of_letter, text)))


def _width_of_letter(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
