"""Sets up the log of this process, and of those that its policies run in."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Collection
from typing import NamedTuple

from policyserve.core.log import OURS, LineFormatter, ShortFormatter, log_unraisable
from policyserve.logs.json_lines import JsonFormatter
from policyserve.logs.log_file import LogFile


class LogSettings(NamedTuple):
    """How the log is written. level: from which on lines of ours are. file: None is stderr."""

    level: int = logging.INFO
    is_json: bool = False
    file: str | None = None

    @property
    def is_for_all(self) -> bool:
        """Whether what libraries have set up for themselves has to give way."""
        return self.is_json or self.file is not None


_current = LogSettings()


def start_log(settings: LogSettings, on_terminal: LineFormatter | None = None, without: Collection[str] = ()) -> None:
    """Set up the log of this process: ours from a level on, others' warnings. Raises ConfigError about its file.

    on_terminal: formats the text where stderr is a terminal; None: a ShortFormatter. without: events that are told
    elsewhere. Text on stderr changes nothing where a log is set up already; a file and JSON take its place.
    What nobody can catch (an error in a policy's `__del__`) becomes lines of the log, too.
    """
    global _current
    handler = logging.StreamHandler() if settings.file is None else LogFile(settings.file)
    handler.setFormatter(_formatter(settings, on_terminal))
    handler.addFilter(lambda record: getattr(record, "event", None) not in without)
    _current = settings
    sys.unraisablehook = log_unraisable
    level = max(settings.level, logging.WARNING)
    logging.basicConfig(handlers=[handler], level=level, force=settings.is_for_all)
    logging.getLogger(OURS).setLevel(settings.level)
    if settings.is_for_all:
        logging.captureWarnings(True)
        threading.excepthook = log_unraisable
        take_over_others()


def take_over_others() -> None:
    """Have libraries that write to the terminal by handlers of their own (torch) write to the log instead.

    Call it when a policy is loaded: that is when they set them up. Does nothing where the log is text on stderr.
    """
    if not _current.is_for_all:
        return
    for logger in [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]:
        for handler in [one for one in logger.handlers if _is_on_terminal(one)]:
            logger.removeHandler(handler)
            logger.propagate = True


def settings_of_children(level: int) -> LogSettings:
    """How a policy's own process is to log. level: from which on lines of ours are, here."""
    return _current._replace(level=level)


def _formatter(settings: LogSettings, on_terminal: LineFormatter | None) -> logging.Formatter:
    if settings.is_json:
        return JsonFormatter()
    is_terminal = settings.file is None and sys.stderr is not None and sys.stderr.isatty()
    return (on_terminal or ShortFormatter()) if is_terminal else LineFormatter()


def _is_on_terminal(handler: logging.Handler) -> bool:
    streams = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    stream = getattr(handler, "stream", None)
    return isinstance(handler, logging.StreamHandler) and any(stream is one for one in streams if one is not None)
