"""Rows of a terminal as pieces of text with a style each, and how numbers and their histories are written. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from policyserve.cli.layout import cut, padded, width_of

Style = Literal["", "bold", "dim", "red", "yellow", "green", "cyan"]
UNKNOWN = "–"
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"  # the levels of a history, the lowest first


class Piece(NamedTuple):
    """Text of one style; a terminal shows it as it is."""

    text: str
    style: Style = ""


Row = Sequence[Piece]


def fitted(row: Row, columns: int) -> Row:
    """The row, of which nothing is beyond so many columns."""
    kept: list[Piece] = []
    left = columns
    for piece in row:
        if left <= 0:
            break
        kept.append(Piece(cut(piece.text, left), piece.style))
        left -= width_of(kept[-1].text)
    return kept


def apart(left: Row, right: Row, columns: int) -> Row:
    """A row whose parts stand at its two ends; the right one stays whole."""
    room = columns - sum(width_of(piece.text) for piece in right) - 2
    left = fitted(left, room)
    return [*left, Piece(padded("", 2 + room - sum(width_of(piece.text) for piece in left))), *right]


def aligned(text: str, columns: int) -> str:
    """The text and blanks before it."""
    return " " * (columns - width_of(text)) + text


def short(value: float | None) -> str:
    """A number with as many digits as say something: 0.042, 3.1, 12.4, 1,250; whole ones without a point: 7."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    if size >= 100 or size == round(size):
        return f"{value:,.0f}"
    digits = 3 if size >= 10 else 2
    return f"{float(f'{value:.{digits}g}'):.{max(digits - 1 - math.floor(math.log10(size)), 0)}f}"


def duration(seconds: float | None) -> str:
    """How long, in its two largest units."""
    if seconds is None:
        return UNKNOWN
    whole = max(round(seconds), 0)
    minutes, hours = whole // 60, whole // 3600
    if whole < 60:
        return f"{whole} s"
    if minutes < 60:
        return f"{minutes} min {whole % 60} s"
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def spark(values: Sequence[float | None], kept: int, columns: int, top: float, marks: str = BLOCKS) -> str:
    """A history as one line, the newest at its right; blank where nothing is known.

    kept: values of a full history. Where it has more of them than there are columns, each stands for the largest of
    several, so that one slow second is seen.
    """
    each = math.ceil(kept / max(columns, 1))
    wide = math.ceil(kept / each)
    newest = list(values)[-wide * each :]
    padding: list[float | None] = [None] * (wide * each - len(newest))
    filled = [*padding, *newest]
    return "".join(_mark(filled[start : start + each], top, marks) for start in range(0, len(filled), each))


def _mark(values: Sequence[float | None], top: float, marks: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return " "
    share = min(max(max(known) / top, 0.0), 1.0) if top > 0 else 0.0
    return marks[round(share * (len(marks) - 1))]
