"""The line that a terminal shows while something is measured."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from policyserve.bench.machine import counted
from policyserve.bench.tally import Tally

_LINE_EVERY_S = 0.25
_BAR = 20  # columns


class Progress:
    """A line on a terminal that says what is measured, how far that is, and how many answers came."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clear = "\r\033[K" if stream.isatty() else ""
        self._what, self._seconds = "", 0.0
        self._tally = Tally()
        self._since = time.monotonic()
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        if stream.isatty():
            self._thread.start()

    def show(self, what: str, tally: Tally, seconds: float) -> None:
        """From now on `what` is measured for so many seconds, 0 where nobody knows, and fills `tally`."""
        with self._lock:
            self._what, self._tally, self._seconds, self._since = what, tally, seconds, time.monotonic()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        with self._lock:
            print(f"{self._clear}{line}", file=self._stream, flush=True)

    def close(self) -> None:
        """Take the line away."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
            print(self._clear, end="", file=self._stream, flush=True)

    def _run(self) -> None:
        while not self._is_over.wait(_LINE_EVERY_S):
            with self._lock:
                errors = sum(self._tally.errors.copy().values())
                passed = time.monotonic() - self._since
                told = progress_text(self._what, passed, self._seconds, self._tally.answers, errors)
                print(f"{self._clear}{told}", end="", file=self._stream, flush=True)


def progress_text(what: str, passed: float, seconds: float, answers: int, errors: int, columns: int = 0) -> str:
    """One line of at most `columns` (0: the terminal's) less one, which is cut in `what`: the figures are whole.

    passed: of `seconds`, which are 0 where nobody knows how long it takes.
    """
    done = min(int(_BAR * passed / seconds), _BAR) if seconds else 0
    bar = f"[{'#' * done}{'.' * (_BAR - done)}] {min(passed, seconds):.1f} of {seconds:g} s" if seconds else ""
    told = f"{bar or f'{passed:.1f} s'}, {counted(answers, 'answer')}"
    told += f", {counted(errors, 'error')}" if errors else ""
    room = (columns or shutil.get_terminal_size().columns) - 1 - len(told) - 2
    shown = what if len(what) <= room else f"{what[: max(room - 1, 0)]}…"
    return f"{shown}: {told}"


@contextmanager
def progress_line(stream: TextIO) -> Iterator[Progress]:
    """A Progress on this stream, if it is a terminal, that ends with the block."""
    progress = Progress(stream)
    try:
        yield progress
    finally:
        progress.close()
