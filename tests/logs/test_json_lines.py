"""Lines for programs: one JSON object each, whatever a stranger's text, values and errors are."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.logs.json_lines import JsonFormatter
from tests.engine.awkward import Raising
from tests.logs.reading import Line, keeping, read_line
from tests.strange import FORGED, STRANGE, strange

LOG = Log("policyserve.test")


@given(st.text(), st.text(), st.text())
def test_any_text_of_a_peer_stays_one_line_and_valid_json(text: str, path: str, dialect: str) -> None:
    with keeping() as kept:
        LOG.warning("session %d: %s", 3, text, event=Event("request_refused", 3, text, dialect, path=path, code=text))
        logging.getLogger("library").warning("%s", text, extra={"session": text, "event": path})
    for written in kept.texts:
        assert len(written.splitlines()) == 1
        assert written.isascii()
    ours, theirs = kept.lines
    assert (ours["event"], ours["session"]) == ("request_refused", 3)
    assert list(theirs) == ["ts", "level", "event", "message", "logger"]


def test_a_line_has_its_keys_in_this_order_and_no_other() -> None:
    with keeping() as kept:
        event = Event("request_refused", 3, "10.0.0.7:4", "openpi", "arm", "bad_observation", 1.23456, "x/y")
        LOG.warning("session %d: %s", 3, "no", event=event)
    (line,) = kept.lines
    assert line.pop("ts")
    assert list(line.items()) == [
        ("level", "warning"), ("event", "request_refused"), ("message", "session 3: no"), ("session", 3),
        ("peer", "10.0.0.7:4"), ("dialect", "openpi"), ("policy", "arm"), ("code", "bad_observation"), ("ms", 1.235),
        ("path", "x/y"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_a_traceback_is_one_key_of_ours_and_of_a_librarys(name: str) -> None:
    with keeping() as kept:
        try:
            strange(name)
        except BaseException as error:
            LOG.error("it failed", event=Event("observer_failed"), cause=error)
            theirs = formatted("library", "it failed", error=sys.exc_info())
    for line in (*kept.lines, theirs):
        assert line["message"] == "it failed"
        assert line["traceback"]
        assert all(part.isprintable() for part in line["traceback"].split("\n"))


def formatted(name: str, text: str, *values: Any, level: int = logging.ERROR, error: Any = None) -> Line:
    return read_line(JsonFormatter().format(logging.LogRecord(name, level, __file__, 1, text, values, error)))


def test_a_librarys_lines_have_its_name() -> None:
    line = formatted("torch.cuda", "a bug\n%s", FORGED)
    assert (line["event"], line["logger"]) == ("log", "torch.cuda")
    assert line["message"].startswith("a bug\\n2001")


def test_a_record_that_cannot_be_formatted_is_a_line_too() -> None:
    line = formatted("library", "%s", Raising("an exit"))
    assert (line["message"], line["logger"]) == ("unprintable", "library")
    assert formatted("library", "%d", "no number")["message"] == "unprintable"


@pytest.mark.parametrize(
    ("number", "name"), [(5, "debug"), (20, "info"), (25, "info"), (30, "warning"), (40, "error"), (99, "critical")]
)
def test_a_level_of_anybodys_is_one_of_five(number: int, name: str) -> None:
    assert formatted("library", "x", level=number)["level"] == name


def test_an_error_without_a_message_tells_itself() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        assert formatted("library", "", error=sys.exc_info())["message"] == "ValueError: why"


def test_numbers_that_json_lacks_are_null_and_other_values_texts() -> None:
    record = logging.LogRecord("policyserve.x", logging.INFO, __file__, 1, "x", (), None)
    vars(record).update(event="ready", ms=float("nan"), policy=Raising("an exit"), path="p" * 10_000)
    line = json.loads(JsonFormatter().format(record))
    assert (line["ms"], line["policy"]) == (None, "unprintable")
    assert len(line["path"]) <= 200
