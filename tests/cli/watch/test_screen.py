"""Rows as a terminal and a pipe get them."""

from __future__ import annotations

import sys

import pytest

from policyserve.cli.watch import screen
from policyserve.cli.watch.rows import ASCII, BLOCKS, Piece
from policyserve.core.errors import MissingDependency
from tests.policies.frameworks import import_or_skip

import_or_skip("rich")
HOSTILE = "[bold red]x[/] :smile: https://a.example 'quoted' 12 None"


def test_a_row_is_printed_as_it_is_whatever_brackets_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_rows([[Piece(HOSTILE, "red")], [], [Piece("[/]"), Piece(" last", "dim")]])
    assert capsys.readouterr().out == f"{HOSTILE}\n\n[/] last\n"


def test_a_row_that_is_longer_than_the_terminal_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_rows([[Piece("word " * 40)]])
    assert capsys.readouterr().out.count("\n") == 1


def test_without_rich_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingDependency, match=r"pip install 'policyserve\[top\]'"):
        screen.check_installed()


@pytest.mark.parametrize(("encoding", "levels"), [("utf-8", BLOCKS), ("ascii", ASCII), ("latin-1", ASCII)])
def test_the_levels_are_letters_where_the_terminal_has_no_blocks(
    encoding: str, levels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        pass

    stream = Stream()
    stream.encoding = encoding  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdout", stream)
    assert screen.marks() == levels
