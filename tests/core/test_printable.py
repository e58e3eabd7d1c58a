"""Whatever a stranger's text or object is: what comes out can be printed, is bounded, and nothing raises."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.printable import (
    MOST,
    UNPRINTABLE,
    error_text,
    indented,
    log_record,
    one_line,
    some_lines,
    some_of,
    text_of,
    traceback_lines,
)
from tests.strange import STRANGE, strange

# Letters of every kind, and above all those that a terminal or a reader of lines takes for commands.
LETTERS = st.characters(codec=None, exclude_categories=())
CONTROLS = st.sampled_from("\n\r\t\0\x1b\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200f\ud800\udfff\ufeff\u061c")
TEXTS = st.text(st.one_of(LETTERS, CONTROLS), max_size=200)


def is_harmless(text: str) -> bool:
    """Letters, marks and spaces: no control (Cc), direction (Cf), surrogate (Cs) or line end (Zl, Zp)."""
    text.encode()
    return not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text)


@given(TEXTS, st.integers(10, 300))
def test_any_text_is_one_bounded_line_that_can_be_printed(text: str, most: int) -> None:
    line = one_line(text, most)
    assert is_harmless(line)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1


@given(TEXTS)
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    line = one_line(text)
    assert one_line(line) == line
    if text.isprintable():
        assert line == text


@given(TEXTS)
def test_lines_stay_lines_and_nothing_else_makes_one(text: str) -> None:
    lines = some_lines(text).split("\n")
    assert all(is_harmless(line) for line in lines)
    assert len(lines) == text.count("\n") + 1


@given(TEXTS)
def test_of_a_log_record_one_line_alone_begins_at_the_margin(text: str) -> None:
    first, *rest = log_record(f"a line {text}").split("\n")
    assert first.startswith("a line ")
    assert all(line.startswith(" ") for line in rest)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café 机器人 \U0001f916", "café 机器人 \U0001f916"),
        ("C:\\new", "C:\\new"),
        ("x\n2001-01-01 INFO forged", "x\\n2001-01-01 INFO forged"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\x9b31m\x85", "a\\x9b31m\\x85"),
        ("caf\udce9.txt", "caf\\udce9.txt"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_what_cannot_be_printed_is_written_as_in_a_literal(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_of_a_long_text_both_ends_stay() -> None:
    line = one_line("begin" + "x" * 10**6 + "end")
    assert line.startswith("begin")
    assert line.endswith("end")
    assert len(line) == MOST


@pytest.mark.parametrize("name", STRANGE)
def test_of_any_error_there_is_a_line_and_a_traceback_of_a_few_kilobytes(name: str) -> None:
    try:
        strange(name)
    except BaseException as error:
        line, lines = error_text(error), traceback_lines(error)
    for one in (line, *lines):
        assert is_harmless(one)
        assert type(one) is str
    assert len(line) <= 2 * MOST + 2
    assert sum(map(len, lines)) < 10_000


def test_an_error_is_told_by_its_type_and_text() -> None:
    assert error_text(ValueError("negative")) == "ValueError: negative"
    assert error_text(StopIteration()) == "StopIteration"


def test_an_error_whose_text_cannot_be_made_is_told_by_its_type() -> None:
    class Textless(Exception):
        def __str__(self) -> str:
            raise AttributeError("reason")

    assert error_text(Textless()) == f"Textless: {UNPRINTABLE}"


def test_a_traceback_says_where_its_error_was_raised() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("at the end " + "y" * 100_000 + "\nforged")

    with pytest.raises(ValueError, match="at the end") as caught:
        deep(200)
    lines = traceback_lines(caught.value)
    assert lines[0] == "Traceback (most recent call last):"
    assert any("in deep" in line for line in lines)
    assert any(line.startswith("ValueError: at the end yyy") for line in lines)
    assert len(indented("a line", lines)) < 10_000


@pytest.mark.parametrize("value", [10**5_000, object(), b"\xff", ["\x1b"]], ids=["int", "object", "bytes", "list"])
def test_any_object_has_a_text(value: Any) -> None:
    assert is_harmless(text_of(value))


def test_of_many_names_the_first_are_told() -> None:
    assert (some_of("a"), some_of("abc"), some_of("abcde")) == ("a", "a, b, c", "a, b, c and 2 more")
