"""Numbers, durations and histories as a terminal has room for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.cli.layout import width_of
from policyserve.cli.watch.rows import ASCII, Piece, apart, duration, fitted, short, spark
from tests.cli.watch.told import text_of_row


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (0.0, "0"),
        (7.0, "7"),
        (0.0421, "0.042"),
        (3.14, "3.1"),
        (12.34, "12.3"),
        (141.2, "141"),
        (1250.4, "1,250"),
    ],
)
def test_a_number_has_the_digits_that_say_something(value: float | None, said: str) -> None:
    assert short(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (0.2, "0 s"), (59.4, "59 s"), (75, "1 min 15 s"), (3700, "1 h 1 min"), (200_000, "2 d 7 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def test_a_history_stands_at_the_right_and_what_is_not_known_is_blank() -> None:
    assert spark([0.0, None, 4.0, 8.0], 6, 6, 8.0) == "  ▁ ▅█"


def test_of_a_history_that_is_too_long_each_column_is_the_largest_of_several() -> None:
    assert spark([0.0, 8.0, 0.0, 0.0], 4, 2, 8.0) == "█▁"


def test_a_terminal_without_blocks_gets_letters() -> None:
    assert spark([0.0, 4.0, 8.0], 3, 3, 8.0, ASCII) == "_=#"


@given(
    values=st.lists(st.none() | st.floats(0, 1e6), max_size=200),
    kept=st.integers(1, 200),
    columns=st.integers(-5, 200),
    top=st.floats(0, 1e6),
)
def test_no_history_is_wider_than_its_room(values: list[float | None], kept: int, columns: int, top: float) -> None:
    assert len(spark(values, kept, columns, top)) <= max(columns, 1)


@given(texts=st.lists(st.text("ab漢e\u0301", max_size=12), max_size=4), columns=st.integers(0, 30))
def test_no_row_is_wider_than_its_columns(texts: list[str], columns: int) -> None:
    assert width_of(text_of_row(fitted([Piece(text) for text in texts], columns))) <= columns


def test_what_stands_at_the_right_stays_whole() -> None:
    row = apart([Piece("a long name"), Piece(" more")], [Piece("up 3 s", "dim")], 16)
    assert text_of_row(row) == "a long …  up 3 s"
