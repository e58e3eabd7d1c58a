"""A command in a pseudo-terminal, as a person watches it and presses keys."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.serving import ROOT

DEADLINE_S = 60.0  # generous: only a bug reaches it
needs_terminals = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here")


class Watched:
    """A running command. written: what it has sent to its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        self.written = ""

    @property
    def shown(self) -> list[str]:
        """The terminal's lines, as a person sees them."""
        return rendered(self.written)

    def until(self, text: str) -> None:
        """Wait until the terminal shows a line with this text, and its end: a key that is pressed drops what is not."""
        while not any(text in line for line in self.shown[:-1]):
            assert self._read(), f"{text!r} never came: {self.written}"

    def press(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def resize(self, columns: int, rows: int) -> None:
        """Have the window another size; what was shown before is forgotten."""
        import fcntl
        import termios

        self.forget()
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def forget(self) -> None:
        """Have until() wait for what is written from now on."""
        self.written = ""

    def terminate(self) -> None:
        self._process.terminate()

    def end(self) -> int:
        """Wait for its end; returns its exit status, or the negative number of the signal that ended it."""
        while self._read():
            pass
        return self._process.wait(DEADLINE_S)

    def _read(self) -> bool:
        """Read what is there; False at the end."""
        ready, _, _ = select.select([self._terminal], [], [], DEADLINE_S)
        assert ready, f"nothing came: {self.written}"
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # Linux's way to say that nobody has the other end any more
            return False
        self.written += data.decode()
        return bool(data)


@contextmanager
def watching(
    command: Sequence[str], cwd: Path = ROOT, columns: int = 80, variables: Mapping[str, str] | None = None
) -> Iterator[Watched]:
    """Run a command in a terminal of its own; kill it at the end if it has not ended."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    surroundings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_THE_TERMINAL, *command],
        cwd=cwd,
        env={**surroundings, "TERM": "xterm", **(variables or {})},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Watched(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# The terminal becomes the session's own, so that its Ctrl-C is a signal.
_WITH_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def rendered(text: str) -> list[str]:
    """The lines of a terminal without an end to its right, for the few controls that we use; colours are left out."""
    lines, column = [""], 0
    for piece in re.findall(r"\x1b\[[\d;]*[A-Za-z]|.", text, re.DOTALL):
        if piece == "\n":
            lines.append("")
            column = 0
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif piece >= " ":  # no control, which drives nothing here
            lines[-1] = lines[-1][:column].ljust(column) + piece + lines[-1][column + 1 :]
            column += 1
    return lines
