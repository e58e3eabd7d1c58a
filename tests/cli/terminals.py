"""A command in this process whose output is a terminal of 80 columns, or a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, TextIO
from unittest import mock

from policyserve.cli import main

Where = Literal["terminal", "pipe"]
WHERE: tuple[Where, ...] = ("terminal", "pipe")
COLUMNS = 80


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed, as the terminal or the pipe got it."""

    code: object
    out: str
    err: str


def run_in(where: Where, argv: Sequence[str], **environment: str) -> Said:
    """Run `policyserve` with these words to its end."""
    texts: dict[str, str] = {}
    hidden = {"NO_COLOR", "COLUMNS", "LINES"}
    shown = {name: value for name, value in os.environ.items() if name not in hidden}
    code: object = 0
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {**shown, "TERM": "xterm", **environment}, clear=True))
        for name in ("stdout", "stderr"):
            stream = stack.enter_context(_stream(where, name, texts))
            stack.enter_context(mock.patch.object(sys, name, stream))
            stack.enter_context(mock.patch.object(sys, f"__{name}__", stream))
        try:
            main(argv)
        except SystemExit as end:
            code = 0 if end.code is None else end.code
    return Said(code, texts["stdout"], texts["stderr"])


def knows(words: Sequence[str]) -> bool:
    """Whether a command has all flags of these words: it stumbles at the one that is added, and at none before."""
    return run_in("pipe", [*words, "--no-such-flag"]).err.startswith("error: unknown flag --no-such-flag (")


def plain(text: str) -> str:
    """A text without colours."""
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def unbroken(text: str) -> str:
    """What was said, without the breaks that a terminal has in an error that is longer than its lines."""
    return text.replace("\n    ", " ")


@contextmanager
def _stream(where: Where, name: str, texts: dict[str, str]) -> Iterator[TextIO]:
    """A stream whose text is in `texts` once the block is over."""
    reading, writing = pty.openpty() if where == "terminal" else os.pipe()
    if where == "terminal":
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    pieces: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(reading, pieces))
    reader.start()
    with open(writing, "w", encoding="utf-8", newline="") as stream:
        yield stream
    reader.join()
    os.close(reading)
    texts[name] = b"".join(pieces).decode().replace("\r\n", "\n")


def _read_all(descriptor: int, pieces: list[bytes]) -> None:
    try:
        while piece := os.read(descriptor, 1 << 16):
            pieces.append(piece)
    except OSError:  # how a pseudo-terminal ends on Linux
        pass
