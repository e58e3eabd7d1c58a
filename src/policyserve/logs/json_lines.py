"""Lines of the log for programs: each is one JSON object, whatever a stranger's text holds.

docs/logs.md has the keys. Everything is ASCII, so that no encoding of a terminal or a pipe breaks a line.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

from policyserve.core.events import EVENTS, FACTS
from policyserve.core.log import OURS
from policyserve.core.printable import UNPRINTABLE, error_text, one_line, text_of, traceback_lines

_LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
_LONGEST_FACT = 200  # characters
_OTHER = "log"  # the event of a line that is about none of ours


class JsonFormatter(logging.Formatter):
    """Formats a record of any library as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return json.dumps(dict(_pairs(record)), allow_nan=False)
        except BaseException:  # a stranger's values
            return json.dumps({**_first_keys(record, _OTHER, UNPRINTABLE), "logger": text_of(record.name)})


def _pairs(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    is_ours = record.name.partition(".")[0] == OURS
    event = getattr(record, "event", None) if is_ours else None
    event = event if event in EVENTS else _OTHER
    message, traceback = _message_of(record, is_ours)
    yield from _first_keys(record, event, message).items()
    if event == _OTHER:
        yield "logger", text_of(record.name, _LONGEST_FACT)
    else:
        yield from ((name, _plain(getattr(record, name))) for name in FACTS if hasattr(record, name))
    if traceback:
        yield "traceback", traceback


def _first_keys(record: logging.LogRecord, event: str, message: str) -> Mapping[str, object]:
    at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
    level = next((name for number, name in _LEVELS if record.levelno >= number), "debug")
    return {"ts": at.replace("+00:00", "Z"), "level": level, "event": event, "message": message}


def _message_of(record: logging.LogRecord, is_ours: bool) -> tuple[str, str]:
    """What it says on one line, and the traceback; in a message of ours that stands below, with its lines indented."""
    told = record.getMessage()
    if is_ours:
        told, _, below = told.partition("\n")
        if below:
            return one_line(told), "\n".join(one_line(line.removeprefix("    ")) for line in below.split("\n"))
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return one_line(told), ""
    return one_line(told) or error_text(error), "\n".join(traceback_lines(error))


def _plain(value: object) -> object:
    """A number as it is, anything else as a text on one line."""
    if type(value) is int:
        return value
    if type(value) is float:
        return round(value, 3) if math.isfinite(value) else None
    return text_of(value, _LONGEST_FACT)
