"""A file that the log is appended to, by this process and those of its policies.

What must stay true: whatever happens to the file, nothing is raised and serving goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from pathlib import Path

from policyserve.core.errors import ConfigError
from policyserve.core.events import Event

_MODE = 0o640  # peers' addresses are nobody else's business


class LogFile(logging.Handler):
    """Appends each record in one write; begins a new file where the one before was moved away or removed.

    Raises ConfigError that names what is wrong with the path, if it cannot be opened now. Later, while it cannot be
    written, one line on stderr says so; the first line that can be tells how many are missing.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = os.path.abspath(os.path.expanduser(path))  # a policy may change the working directory
        try:
            self._descriptor = _opened(self._path)
        except OSError as error:
            raise ConfigError(f"log_file: {_why_not(path, Path(self._path), error)}") from error
        self._lost = 0
        self._is_mid_line = False  # a disk that was full took half of one

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; called by logging, which lets one thread in at a time."""
        try:
            line = self.format(record)
            self._follow()
            if self._lost:
                self._append(self.format(self._note_of_lost(record)))
                self._lost = 0
            self._append(line)
        except OSError as error:
            self._lose(error)
        except Exception:  # a stranger's record
            self._lost += 1

    def close(self) -> None:
        """Close the file; what is logged later is lost."""
        super().close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, line: str) -> None:
        data = ("\n" * self._is_mid_line + line + "\n").encode("utf-8", "backslashreplace")
        written = os.write(self._descriptor, data)
        if written < len(data):
            self._is_mid_line = data[written - 1 : written] != b"\n"
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._is_mid_line = False

    def _follow(self) -> None:
        """Go on in a new file if the path is not ours any more: logrotate has moved it, say."""
        ours = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            descriptor = _opened(self._path)
            os.close(self._descriptor)
            self._descriptor, self._is_mid_line = descriptor, False

    def _note_of_lost(self, record: logging.LogRecord) -> logging.LogRecord:
        text = "%d lines before this one could not be written"
        note = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (self._lost,), None)
        note.created = record.created
        vars(note).update(Event("lines_lost").facts())
        return note

    def _lose(self, error: OSError) -> None:
        self._lost += 1
        if self._lost == 1 and sys.stderr is not None:
            why = error.strerror or error
            told = f"error: --log-file: {self._path} cannot be written: {why}; lines are lost until it can be\n"
            try:
                sys.stderr.write(told)
                sys.stderr.flush()
            except (OSError, ValueError):  # nobody is left who could be told
                pass


def _opened(path: str) -> int:
    # Not waiting: a named pipe that nobody reads would hold the server up.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), _MODE)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):  # Linux does not get here
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return descriptor


def _why_not(given: str, path: Path, error: OSError) -> str:
    """What is wrong with the path, and what to do."""
    if path.is_dir():
        return f"expected a file, got the directory {given}; name a file in it, such as {path / 'policyserve.log'}"
    parent = path.parent
    if not parent.is_dir():
        cure = f"{parent} is a file" if parent.exists() else f"mkdir -p {parent} makes it"
        return f"{given}: there is no directory {parent}; {cure}"
    if error.errno == errno.ENXIO:
        return f"{given} is a pipe that nobody reads: start its reader first, or name a file"
    cure = "name a file that you may write" if isinstance(error, PermissionError) else "name another file"
    return f"{given} cannot be written: {error.strerror or error}; {cure}"
