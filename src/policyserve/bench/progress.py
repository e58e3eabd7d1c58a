"""The line that a terminal shows while something is measured."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from policyserve.bench.tally import Tally

_LINE_EVERY_S = 0.25


class Progress:
    """A line on a terminal that says what is measured, for how long, and how many answers came."""

    def __init__(self) -> None:
        self._what = ""
        self._tally = Tally()
        self._since = time.monotonic()
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        if sys.stdout.isatty():
            self._thread.start()

    def show(self, what: str, tally: Tally) -> None:
        """From now on `what` is measured, and fills `tally`."""
        with self._lock:
            self._what, self._tally, self._since = what, tally, time.monotonic()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        with self._lock:
            print(f"{_clear()}{line}", flush=True)

    def close(self) -> None:
        """Take the line away."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
            print(_clear(), end="", flush=True)

    def _run(self) -> None:
        while not self._is_over.wait(_LINE_EVERY_S):
            with self._lock:
                seconds = time.monotonic() - self._since
                errors = sum(self._tally.errors.copy().values())
                told = f"{self._what}: {seconds:.1f} s, {self._tally.answers} answers"
                print(f"{_clear()}{told}{f', {errors} errors' if errors else ''}", end="", flush=True)


@contextmanager
def progress_line() -> Iterator[Progress]:
    """A Progress that ends with the block."""
    progress = Progress()
    try:
        yield progress
    finally:
        progress.close()


def _clear() -> str:
    return "\r\033[K" if sys.stdout.isatty() else ""
