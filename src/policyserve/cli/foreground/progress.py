"""The line of a terminal that tells what loading is at, and that nothing else which is written runs into.

What must stay true: whatever is written to standard output and error meanwhile, by any thread, has lines of its own
above that line. What C libraries and other processes write past both takes its place.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from policyserve.cli.layout import columns_of, cut
from policyserve.core.output import ERASE_LINE, LossyStream, as_encoded
from policyserve.core.printable import one_line

_BAR = 30  # columns
_SPARE = 3  # columns: where a terminal lacks `…` it is three dots
_PATIENCE_S = 0.5


class ProgressLine:
    """Owns the last line of a terminal; does nothing where there is no terminal, or one that cannot erase.

    beside_pipe: have the line on standard error also where standard output goes through a pipe: another program may
    write that to the same terminal. is_wanted: whether there is to be a line at all.
    """

    def __init__(self, beside_pipe: bool = False, is_wanted: bool = True) -> None:
        can_replace = is_wanted and (beside_pipe or sys.stdout.isatty()) and os.environ.get("TERM", "dumb") != "dumb"
        self._streams = [stream for stream in (sys.stdout, sys.stderr) if can_replace and stream.isatty()]
        self._wanted = ""
        self._is_drawn = False
        self._is_mid_line = False  # what was written last did not end its line, which must not be replaced
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):  # a process that a policy forks may find the lock held by another thread
            os.register_at_fork(after_in_child=self._forget_lock)

    @property
    def columns(self) -> int:
        """How many columns a text may have that is not cut."""
        return columns_of(self._streams[0] if self._streams else sys.stderr) - _SPARE

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Have what is written to sys.stdout and sys.stderr stand above the line, and end with the line taken away."""
        before = {"stdout": sys.stdout, "stderr": sys.stderr}
        for name, stream in before.items():
            if stream in self._streams:
                setattr(sys, name, _AboveLine(stream, self))
        try:
            yield
        finally:
            self.show("")
            for name, stream in before.items():
                setattr(sys, name, stream)

    def show(self, text: str) -> None:
        """Replace the line; of a text that is too long the end is cut, an empty one takes the line away."""
        with self._turn():
            self._wanted = text
            if not self._is_mid_line and self._streams:
                self._draw()

    def start_line(self) -> None:
        """Go to a new line, if something has begun one, else over what the terminal itself has written: `^C`."""
        with self._turn():
            if self._streams:
                self._put("\n" if self._is_mid_line else ERASE_LINE)
                self._is_mid_line = self._is_drawn = False

    def end_line(self) -> None:
        """Go to a new line, if something has begun one."""
        with self._turn():
            if self._streams and self._is_mid_line:
                self.start_line()

    def write(self, put: Callable[[str], object], text: str) -> None:
        """Have `put` write a text above the line."""
        if not text:
            return
        with self._turn():
            put(ERASE_LINE + text if self._is_drawn else text)
            self._is_drawn, self._is_mid_line = False, not text.endswith("\n")
            if self._wanted and not self._is_mid_line:
                sys.stdout.flush()
                sys.stderr.flush()
                self._draw()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread at a time, as far as that can be.

        An object's `__del__` may log in the midst of a write, and wait for a thread that logs and waits for this one:
        then two texts may run into each other, and nothing hangs.
        """
        is_ours = self._lock.acquire(timeout=_PATIENCE_S)
        try:
            yield
        finally:
            if is_ours:
                self._lock.release()

    def _draw(self) -> None:
        if self._wanted or self._is_drawn:
            stream = self._streams[0]
            told = as_encoded(self._wanted, stream.encoding or "utf-8")
            # The cursor waits at the beginning: what a C library or another process writes takes the line's place.
            self._put(f"{ERASE_LINE}{cut(told, self.columns)}\r")
        self._is_drawn = bool(self._wanted)

    def _put(self, text: str) -> None:
        self._streams[0].write(text)
        self._streams[0].flush()

    def _forget_lock(self) -> None:
        self._lock = threading.RLock()


class _AboveLine(LossyStream):
    """A stream whose text stands above a progress line."""

    def __init__(self, stream: TextIO, line: ProgressLine) -> None:
        super().__init__(stream)
        self._line = line

    def write(self, text: str) -> int:
        self._line.write(super().write, text)
        return len(text)


def stage_line(stage: str) -> str:
    """What loading is at, with a bar where the stage says `12 %`."""
    found = re.search(r"(\d+) %", stage)
    done = min(int(found.group(1)), 100) * _BAR // 100 if found else 0
    bar = f"[{'#' * done}{'.' * (_BAR - done)}] " if found else ""
    return f"  {bar}{one_line(stage)}"
