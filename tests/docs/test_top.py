"""docs/top.md: its commands and flags are there, and its picture and errors are what the command says."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import pytest

from policyserve.cli.top import TopFlags
from policyserve.cli.watch.drawing import View, draw
from tests.cli.serving import ROOT
from tests.cli.terminals import knows
from tests.cli.watch.told import document, text_of_row

PAGE = (ROOT / "docs" / "top.md").read_text()
SOURCES = "".join(path.read_text() for path in (ROOT / "src/policyserve/cli/watch").glob("*.py"))


def test_its_command_is_one_that_the_program_knows() -> None:
    (command,) = re.findall(r"^policyserve (top .*)$", PAGE, re.MULTILINE)
    assert knows(shlex.split(command))


def test_its_table_has_every_flag_and_no_other() -> None:
    named = set(re.findall(r"^\| `--([a-z-]+)", PAGE, re.MULTILINE))
    assert named == {field.name.replace("_", "-") for field in fields(TopFlags)} - {"url"}


def test_its_picture_is_what_is_drawn() -> None:
    (picture,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    rows = draw(View(document(), "ws://robot:8000", hint="q: end"), 80, 24)
    assert "".join(f"{text_of_row(row).rstrip()}\n" for row in rows) == picture


@pytest.mark.parametrize("told", re.findall(r"^\| `(it [^`…]+?):?(?: …)?`", PAGE, re.MULTILINE))
def test_its_errors_are_said(told: str) -> None:
    assert told in SOURCES
