"""Texts in columns."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.cli.layout import columns_of, cut, cut_in_the_middle, width_of, with_short_paths, wrapped

TEXTS = st.text("ab 中é\u0301")


@given(TEXTS, st.integers(4, 30))
def test_lines_fit_and_nothing_but_blanks_is_lost(text: str, columns: int) -> None:
    lines = wrapped(text, columns)
    assert all(width_of(line) <= columns for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(TEXTS, st.integers(4, 30))
def test_what_is_cut_fits_and_keeps_its_beginning(text: str, columns: int) -> None:
    for made in (cut(text, columns), cut_in_the_middle(text, columns)):
        assert width_of(made) <= columns
        assert (made == text) is (width_of(text) <= columns)


def test_of_a_path_the_end_stays() -> None:
    assert cut_in_the_middle("/usr/lib/python3/site-packages/checkpoints", 20).endswith("/checkpoints")


def test_long_paths_in_a_text_are_shortened_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    text = f"read /home/ada/a and /mnt/home/ada/b, then /data{'/x' * 40}/c; {'w' * 60}"
    made = with_short_paths(text, 20)
    assert made.startswith("read ~/a and /mnt/home/ada/b, then /data/")
    assert made.endswith(f"/x/c; {'w' * 60}")


def test_a_stream_that_is_no_terminal_is_taken_for_80_columns() -> None:
    assert columns_of(io.StringIO()) == 80
