"""What a person sees when something is wrong."""

from __future__ import annotations

import pytest

from policyserve.cli.terminal import complain
from tests.cli.terminals import COLUMNS, WHERE, plain, run_in, unbroken


def test_a_complaint_is_one_bounded_line_that_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        complain("config.json: got 'a\x1b[2J\nb\x9b'" + "c" * 100_000, 1)
    said = capsys.readouterr().err
    assert said.startswith("error: config.json: got 'a\\x1b[2J\\nb\\x9b'ccc")
    assert said.rstrip("\n").isprintable()
    assert len(said) < 20_000


@pytest.mark.parametrize("words", [["new", "deep/" * 30 + "arm.py"], ["serve", "wall-x"]])
def test_a_terminal_breaks_a_long_complaint_between_words(words: list[str]) -> None:
    shown, whole = (plain(run_in(where, words).err) for where in WHERE)
    assert max(map(len, shown.splitlines())) < COLUMNS
    assert unbroken(shown) == whole or "deep/" in whole  # of which a word is longer than a line
    assert len(whole.splitlines()) == 1
