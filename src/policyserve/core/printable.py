"""Texts of strangers as a log, a terminal and a wire can take them: what peers send, policies raise and files hold.

What must stay true: nothing here raises, whatever an object does when its text is asked for; what comes out has no
control character, no surrogate and no line end of a stranger's; and its length is bounded.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

MOST, MOST_LINES = 3000, 4000  # characters of one text, and of one with several lines
UNPRINTABLE = "unprintable"  # in place of a text that cannot be made

_INDENT = "    "
_LEFT_OUT = " … "
# Of a traceback, so that it has a few kilobytes. Its end says what was raised, and where.
_FIRST_LINES, _LAST_LINES, _MOST_OF_LINE = 12, 28, 200
_MOST_OF_RECORD = 20_000
_SOME = 3  # names that are told of many


def one_line(text: str, most: int = MOST) -> str:
    """The text on one line; of more than `most` characters its middle is left out.

    Escaped as in a Python literal: control characters (C0, C1), all line ends, marks that turn the direction of text,
    surrogates, and whatever else has no glyph of its own.
    """
    text = _shortened(str.__str__(text), most)  # a subclass's own methods are a stranger's
    if text.isprintable():
        return text
    return _shortened("".join(letter if letter.isprintable() else _escaped(letter) for letter in text), most)


def some_lines(text: str, most: int = MOST_LINES) -> str:
    """The text with its lines, each as one_line() has it: for a traceback that a server sent, say.

    Those below the first are indented, so that nobody takes them for lines of their own.
    """
    first, *rest = (one_line(line, most) for line in _shortened(str.__str__(text), most).split("\n"))
    return _shortened("\n".join([first, *(line if line.startswith(" ") else _INDENT + line for line in rest)]), most)


def text_of(value: object, most: int = MOST) -> str:
    """str(value) as one_line() has it; `unprintable` where that cannot be made."""
    try:
        return one_line(str(value), most)
    except BaseException:  # a stranger's __str__
        return UNPRINTABLE


def some_of(names: Sequence[str]) -> str:
    """The first of some names, by commas, and how many more there are."""
    more = len(names) - _SOME
    return ", ".join(names[:_SOME]) + (f" and {more} more" if more > 0 else "")


def error_text(error: BaseException) -> str:
    """The error's type and text on one line: `ValueError: negative`."""
    text = text_of(error)
    return f"{type_name(error)}: {text}" if text else type_name(error)


def type_name(value: object) -> str:
    """The name of its class, as one_line() has it."""
    try:
        return one_line(type(value).__name__, _MOST_OF_LINE)
    except BaseException:  # a stranger's metaclass
        return UNPRINTABLE


def traceback_lines(error: BaseException) -> list[str]:
    """The error's traceback, its causes among it, line by line; of a long one the middle is left out."""
    try:
        lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    except BaseException:  # a stranger's attributes
        lines = [error_text(error)]
    if len(lines) > _FIRST_LINES + _LAST_LINES:
        lines[_FIRST_LINES:-_LAST_LINES] = ["…"]
    return [one_line(line, _MOST_OF_LINE) for line in lines]


def indented(first: str, lines: list[str]) -> str:
    """A line, and more below it that nobody takes for lines of their own."""
    return "\n".join([first, *(_INDENT + line for line in lines)])


def log_record(text: str) -> str:
    """What a log record was formatted to, whoever made it, with its lines below the first indented."""
    return some_lines(text, _MOST_OF_RECORD)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = (most - len(_LEFT_OUT)) // 3
    return text[: most - len(_LEFT_OUT) - tail] + _LEFT_OUT + text[len(text) - tail :]


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
