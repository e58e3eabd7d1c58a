"""Keeps a terminal from writing `^C` by itself, which may come behind what the program answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_MODES = 3  # where a terminal's local modes are in what tcgetattr() gives


@contextmanager
def without_control_characters(stream: TextIO) -> Iterator[None]:
    """Have the stream's terminal not show control characters that are typed; afterwards it does as it did before."""
    shown = _show(stream, False)
    try:
        yield
    finally:
        if shown:
            _show(stream, True)


def _show(stream: TextIO, is_wanted: bool) -> bool:
    """Switch it on or off; returns whether it was on. Does nothing where the terminal is not ours to change."""
    try:
        import termios
    except ImportError:  # Windows has none
        return False
    try:
        terminal = stream.fileno()
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return False  # the system stops a program in a shell's background that changes its terminal
        modes = termios.tcgetattr(terminal)
        was_on = bool(modes[_MODES] & termios.ECHOCTL)
        modes[_MODES] = modes[_MODES] | termios.ECHOCTL if is_wanted else modes[_MODES] & ~termios.ECHOCTL
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
    except (OSError, ValueError, termios.error):  # no terminal, or somebody else's
        return False
    return was_on
