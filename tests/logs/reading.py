"""Lines of a log in JSON, read as a program reads them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from policyserve.core.events import EVENTS, FACTS
from policyserve.logs.json_lines import JsonFormatter

Line = dict[str, Any]
FIRST = ["ts", "level", "event", "message"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NUMBERS = {"session": int, "ms": float}


def read_line(text: str) -> Line:
    """One line, whose keys are those that docs/logs.md promises."""
    assert text.isprintable(), text
    line = json.loads(text)
    keys = list(line)
    assert keys[:4] == FIRST, text
    later = [*FACTS, "logger", "traceback"]
    assert keys[4:] == [key for key in later if key in line], text
    assert TIME.fullmatch(line["ts"]), text
    assert line["level"] in ("debug", "info", "warning", "error", "critical"), text
    assert line["event"] in EVENTS, text
    assert line["message"].isprintable(), text
    assert ("logger" in line) == (line["event"] == "log"), text
    for name in FACTS:
        if name in line:
            kinds = (int, str) if name == "code" else (int, float) if name == "ms" else (NUMBERS.get(name, str),)
            assert isinstance(line[name], kinds), text
    return line


class Kept(logging.Handler):
    """Keeps what is logged, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    @property
    def lines(self) -> list[Line]:
        return [read_line(text) for text in self.texts]

    def of(self, event: str) -> list[Line]:
        return [line for line in self.lines if line["event"] == event]

    def has(self, event: str) -> Callable[[object], bool]:
        """A condition to wait for."""
        return lambda _: bool(self.of(event))


@contextmanager
def keeping() -> Iterator[Kept]:
    """What is logged meanwhile, by anybody, ours from debug on."""
    kept, ours = Kept(), logging.getLogger("policyserve")
    before = ours.level
    logging.root.addHandler(kept)
    ours.setLevel(logging.DEBUG)
    try:
        yield kept
    finally:
        ours.setLevel(before)
        logging.root.removeHandler(kept)
