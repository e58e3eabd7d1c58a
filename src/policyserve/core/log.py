"""The log that every module here writes to, and how its lines look to people; logs/ says where they go.

What a line is about comes from strangers, too: peers, policies, files. It stands there as printable.py makes it.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from policyserve.core.events import Event
from policyserve.core.printable import UNPRINTABLE, error_text, indented, log_record, text_of, traceback_lines
from policyserve.core.throttle import Throttle, suppressed_note

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_SHORT_FORMAT = "%(asctime)s %(levelname)s %(message)s"
OURS = __name__.partition(".")[0]  # the name that all our loggers' names begin with
_CALLER = 3  # frames up, for a handler that tells where a line was logged


class Log:
    """Lines of one module. `text` is ours and has a %-mark for each value; values are made printable.

    cause: an error whose traceback is to stand below the line. event: what the line is about, for programs; its fields
    become attributes of the record.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    @property
    def level(self) -> int:
        """From which level on lines are written."""
        return self._logger.getEffectiveLevel()

    def debug(self, text: str, *values: object, event: Event | None = None, cause: BaseException | None = None) -> None:
        self._write(logging.DEBUG, text, values, event, cause)

    def info(self, text: str, *values: object, event: Event | None = None, cause: BaseException | None = None) -> None:
        self._write(logging.INFO, text, values, event, cause)

    def warning(
        self, text: str, *values: object, event: Event | None = None, cause: BaseException | None = None
    ) -> None:
        self._write(logging.WARNING, text, values, event, cause)

    def error(self, text: str, *values: object, event: Event | None = None, cause: BaseException | None = None) -> None:
        self._write(logging.ERROR, text, values, event, cause)

    def log(
        self,
        level: int,
        text: str,
        *values: object,
        event: Event | None = None,
        cause: BaseException | None = None,
    ) -> int:
        """Log at this level; returns how many characters the line has, 0 if it goes nowhere."""
        return self._write(level, text, values, event, cause)

    def _write(
        self, level: int, text: str, values: tuple[object, ...], event: Event | None, cause: BaseException | None
    ) -> int:
        if not self._logger.isEnabledFor(level):
            return 0
        # Now and not when a handler comes to it: that may be another thread, and the objects are a stranger's.
        made = [value if type(value) is int or type(value) is float else text_of(value) for value in values]
        if cause is not None:
            text += "%s"
            made.append(indented("", traceback_lines(cause)))
        extra = None if event is None else event.facts()
        self._logger.log(level, text, *made, stacklevel=_CALLER, extra=extra)
        return len(text) + sum(len(one) for one in made if isinstance(one, str))


_log, _throttle = Log(__name__), Throttle()


def log_unraisable(unraisable: Any) -> None:
    """Log an error that nobody can catch; for sys.unraisablehook and threading.excepthook."""
    if isinstance(unraisable.exc_value, SystemExit):
        return  # a thread's way to end
    suppressed = _throttle.passes("unraisable", time.monotonic())
    if suppressed is not None:
        error = unraisable.exc_value
        told = "an error" if error is None else error_text(error)
        text = "%s, in %s, where nobody can catch it%s"
        place = unraisable.object if hasattr(unraisable, "object") else unraisable.thread
        values = told, place, suppressed_note(suppressed)
        size = _log.log(logging.ERROR, text, *values, event=Event("uncaught"), cause=error)
        _throttle.spend("unraisable", size)


class LineFormatter(logging.Formatter):
    """Formats a record of any library so that it is one line, or one and lines below that are indented."""

    def __init__(self, text: str = _FORMAT, times: str | None = None) -> None:
        super().__init__(text, times)

    def format(self, record: logging.LogRecord) -> str:
        try:
            return log_record(super().format(record))
        except BaseException:  # a stranger's values
            return f"{record.levelname} {text_of(record.name)}: {UNPRINTABLE}"


class ShortFormatter(LineFormatter):
    """Formats a record for a person at a terminal: `15:49:41 INFO session 1 opened`; others' records with their name.

    A subclass may show the level and the message otherwise: it is given what drives no terminal any more.
    """

    def __init__(self) -> None:
        super().__init__(_SHORT_FORMAT, "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        time_of_day, level, message = [*line.split(" ", 2), "", ""][:3]
        if level != record.levelname:  # a line that could not be formatted has no time
            return line
        is_ours = record.name.partition(".")[0] == OURS
        return f"{time_of_day} {self.shown(level, message if is_ours else f'{text_of(record.name)}: {message}')}"

    def shown(self, level: str, message: str) -> str:
        return f"{level} {message}"
