"""docs/logs.md names the events and the keys of the log, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from policyserve.core.events import EVENTS, FACTS
from tests.cli.serving import ROOT
from tests.logs.reading import FIRST, read_line
from tests.logs.test_events import SCENES

PAGE = (ROOT / "docs" / "logs.md").read_text()
EVENT = re.compile(r"^\| `(\w+)` \| ([a-z, ]+) \| (.+) \| ?(.*?) ?\|$", re.MULTILINE)
KEY = re.compile(r"^\| `(\w+)` \| [^|]+ \|$", re.MULTILINE)
EXAMPLE = re.compile(r"^\{.+\}$", re.MULTILINE)
LEVELS = {"debug", "info", "warning", "error", "any"}


def test_the_table_has_every_event_in_order_with_its_keys() -> None:
    rows = {name: set(re.findall(r"`(\w+)`", keys)) for name, _, _, keys in EVENT.findall(PAGE)}
    assert tuple(rows) == EVENTS
    assert rows == {name: facts for name, (_, facts) in SCENES.items()}
    assert {level for _, levels, _, _ in EVENT.findall(PAGE) for level in levels.split(", ")} == LEVELS


def test_the_table_has_every_key_in_order() -> None:
    assert KEY.findall(PAGE) == [*FIRST, *FACTS, "logger", "traceback"]


def test_the_example_is_a_line() -> None:
    (example,) = EXAMPLE.findall(PAGE)
    assert read_line(example)["event"] == "request_refused"


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_the_commands_for_jq_work() -> None:
    (example,) = EXAMPLE.findall(PAGE)
    programs = re.findall(r"^jq (-\w) '(.+)' serve\.log$", PAGE, re.MULTILINE)
    told = [
        subprocess.run(["jq", *program], input=example, text=True, capture_output=True, check=True).stdout
        for program in programs
    ]
    assert told[0] == ""
    assert json.loads(told[1]) == [{"code": "bad_observation", "count": 1}]
