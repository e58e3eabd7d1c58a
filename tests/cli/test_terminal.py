"""What a person sees while a model loads, and when something is wrong."""

from __future__ import annotations

import pytest

from policyserve.cli.terminal import complain, show_stage


def test_a_stage_that_knows_its_share_has_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    show_stage("weights: 50 % of 8.4 GB")
    assert capsys.readouterr().out.endswith("  [###############...............] weights: 50 % of 8.4 GB")


def test_a_stage_that_does_not_is_shown_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_stage("warming up, batch 4")
    assert capsys.readouterr().out.endswith("  warming up, batch 4")


def test_a_stage_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_stage("\x1b[2J\nreading")
    assert capsys.readouterr().out.endswith("  \\x1b[2J\\nreading")


def test_a_complaint_is_one_bounded_line_that_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        complain("policyserve: config.json: got 'a\x1b[2J\nb\x9b'" + "c" * 100_000, 1)
    said = capsys.readouterr().err
    assert said.startswith("policyserve: config.json: got 'a\\x1b[2J\\nb\\x9b'ccc")
    assert said.rstrip("\n").isprintable()
    assert len(said) < 20_000
