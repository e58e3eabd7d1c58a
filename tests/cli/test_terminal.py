"""What a person sees when something is wrong."""

from __future__ import annotations

import pytest

from policyserve.cli.terminal import complain


def test_a_complaint_is_one_bounded_line_that_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        complain("config.json: got 'a\x1b[2J\nb\x9b'" + "c" * 100_000, 1)
    said = capsys.readouterr().err
    assert said.startswith("error: config.json: got 'a\\x1b[2J\\nb\\x9b'ccc")
    assert said.rstrip("\n").isprintable()
    assert len(said) < 20_000
