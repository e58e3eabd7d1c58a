"""Lines of the log: a stranger's values are harmless in them, and no module writes past the one that makes them so."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import policyserve
from policyserve.core.log import LineFormatter, Log, ShortFormatter, log_unraisable
from tests.core.test_printable import is_harmless
from tests.engine.awkward import Raising
from tests.strange import FORGED, STRANGE, strange

SOURCE = Path(policyserve.__file__).parent
# Loggers that are handed to a library, for lines of its own, or that are a library's, which is quieted.
FOR_LIBRARIES = {"server/handshake.py", "client/handshake.py", "ray/cluster.py"}
LOG = Log("policyserve.test")


def test_values_are_one_bounded_line(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("session %d: %s, %s", 3, f"x\n{FORGED}\x1b[2J", "A" * 100_000)
    message = caplog.records[0].getMessage()
    assert message.startswith("session 3: x\\n2001-01-01")
    assert is_harmless(message)
    assert len(message) < 5_000


@pytest.mark.parametrize("name", STRANGE)
def test_any_error_can_be_a_value_and_a_cause(name: str, caplog: pytest.LogCaptureFixture) -> None:
    try:
        strange(name)
    except BaseException as error:
        LOG.error("it failed: %s", error, cause=error)
    first, *traceback = caplog.records[0].getMessage().split("\n")
    assert first.startswith("it failed: ")
    assert traceback
    assert all(is_harmless(line) and line.startswith("    ") for line in traceback)


def test_any_object_can_be_a_value(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("got %s and %r", Raising("an exit"), Raising("without a text"))
    assert caplog.records[0].getMessage() == "got unprintable and 'unprintable'"


def test_what_a_line_has_in_characters_is_told_and_0_where_nobody_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "policyserve.test"):
        assert LOG.log(logging.DEBUG, "a line") == 0
        assert LOG.log(logging.INFO, "a line %s", "x" * 100, cause=ValueError("y" * 100)) > 200


def test_a_line_tells_where_it_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("here")
    LOG.log(logging.WARNING, "and here")
    assert [record.filename for record in caplog.records] == [Path(__file__).name] * 2


def record(text: str, *values: Any) -> logging.LogRecord:
    """As another library logs it, with its own error's traceback."""
    try:
        strange("forging")
    except ValueError:
        return logging.LogRecord("library", logging.ERROR, __file__, 1, text, values, sys.exc_info())
    raise AssertionError


def test_on_a_terminal_another_librarys_lines_are_harmless_too() -> None:
    first, *lines = LineFormatter().format(record("a bug \x9b31m\n%s", FORGED)).split("\n")
    assert first.endswith("library: a bug \\x9b31m")
    assert any(FORGED in line for line in lines)
    assert all(is_harmless(line) and line.startswith(" ") for line in lines)


def test_for_a_person_a_line_is_short_and_a_librarys_has_its_name() -> None:
    ours = logging.LogRecord("policyserve.server.server", logging.INFO, __file__, 1, "session %d opened", (1,), None)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO session 1 opened", ShortFormatter().format(ours))
    first, *lines = ShortFormatter().format(record("a bug \x9b31m\n%s", FORGED)).split("\n")
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR library: a bug \\x9b31m", first)
    assert all(is_harmless(line) and line.startswith(" ") for line in lines)
    assert ShortFormatter().format(record("%s", Raising("an exit"))) == "ERROR library: unprintable"


def test_of_other_libraries_warnings_are_logged_and_of_ours_what_is_asked_for() -> None:
    program = (
        "import logging; from policyserve.logs.start import LogSettings, start_log\n"
        "start_log(LogSettings(logging.DEBUG))\n"
        "for name in ('jax', 'policyserve.server'):\n"
        "    logging.getLogger(name).debug('a detail')\n"
        "    logging.getLogger(name).info('a note')\n"
        "    logging.getLogger(name).warning('a warning')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=True)
    assert [line.split(" ", 2)[2] for line in done.stderr.splitlines()] == [
        "WARNING jax: a warning",
        "DEBUG   policyserve.server: a detail",
        "INFO    policyserve.server: a note",
        "WARNING policyserve.server: a warning",
    ]


def test_a_line_that_cannot_be_formatted_is_told_as_that() -> None:
    assert LineFormatter().format(record("%s", Raising("an exit"))) == "ERROR library: unprintable"


def test_what_nobody_can_catch_is_logged_and_throttled(caplog: pytest.LogCaptureFixture) -> None:
    class State:
        def __del__(self) -> None:
            strange("forging")

    hook, sys.unraisablehook = sys.unraisablehook, log_unraisable
    try:
        for _ in range(200):
            State()
    finally:
        sys.unraisablehook = hook
    assert 40 < len(caplog.records) < 60
    first, *lines = caplog.records[0].getMessage().split("\n")
    assert first.startswith("ValueError: unknown task x\\n2001-01-01")
    assert is_harmless(first)
    assert all(is_harmless(line) and line.startswith(" ") for line in lines)


def calls(tree: ast.AST) -> Iterator[tuple[int, str, list[str]]]:
    """Each call of a module: its line, what is called, and its keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), [one.arg or "" for one in node.keywords]


def bypasses(path: Path, text: str) -> Iterator[str]:
    """Each call that writes to a log and does not go through core/log.py."""
    for line, called, keywords in calls(ast.parse(text)):
        is_logger = called in ("logging.getLogger", "getLogger", "logging.Logger", "logging.LoggerAdapter")
        if is_logger and path.relative_to(SOURCE).as_posix() not in FOR_LIBRARIES:
            yield f"{path}:{line}: {called}()"
        module_level = [
            f"logging.{name}" for name in ("debug", "info", "warning", "error", "exception", "critical", "log")
        ]
        if called in [*module_level, "log.exception", "warnings.warn", "traceback.print_exc"] or "exc_info" in keywords:
            yield f"{path}:{line}: {called}()"


SETS_UP = ("core/log.py", "logs/start.py")
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).as_posix() not in SETS_UP)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_module_writes_past_the_log(path: Path) -> None:
    assert list(bypasses(path, path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    ["log = logging.getLogger(__name__)", "logging.error('x')", "log.exception('x')", "log.error('x', exc_info=e)"],
)
def test_the_look_finds_what_it_looks_for(text: str) -> None:
    assert list(bypasses(SOURCE / "server/server.py", text))


def test_what_is_written_for_libraries_is_there(caplog: Any) -> None:
    assert all((SOURCE / name).exists() for name in FOR_LIBRARIES)
