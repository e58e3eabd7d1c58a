"""What a person sees while a model loads."""

from __future__ import annotations

import pytest

from policyserve.cli.progress import show_stage


def test_a_stage_that_knows_its_share_has_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    show_stage("weights: 50 % of 8.4 GB")
    assert capsys.readouterr().out.endswith("  [###############...............] weights: 50 % of 8.4 GB")


def test_a_stage_that_does_not_is_shown_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_stage("warming up, batch 4")
    assert capsys.readouterr().out.endswith("  warming up, batch 4")


def test_a_stage_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_stage("\x1b[2J\nreading")
    assert capsys.readouterr().out.endswith("  \\x1b[2J\\nreading")
