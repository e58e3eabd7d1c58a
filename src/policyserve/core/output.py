"""Standard output and error of a program that has to go on when they cannot be written."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

# What a terminal's encoding may lack, and what says the same in ASCII.
_PLAIN = str.maketrans(
    {"·": "-", "…": "...", "–": "-", "—": "-", "→": "->", "←": "<-", "×": "x", "±": "+-", "µ": "u", "≥": ">="}
)
ERASE_LINE = "\r\x1b[K"  # a terminal's: back to the line's beginning, and nothing is left on it


def as_encoded(text: str, encoding: str) -> str:
    """The text in the characters that an encoding has: ASCII for what it lacks, and `?` where there is none."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        kept = "".join(letter if _has(encoding, letter) else letter.translate(_PLAIN) for letter in text)
        return kept.encode(encoding, "replace").decode(encoding)
    return text


def _has(encoding: str, letter: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


class LossyStream:
    """A text stream that raises nothing when it is written to.

    Characters that its encoding lacks become similar ones, or `?`. What a full disk, a closed pipe or a closed file
    refuses is lost. failure: why something was lost, the last time; None if nothing was.
    erases: another process shows a line on the same terminal that it replaces. Each line of ours takes its place, and
    is written whole, at its end or when it is flushed: that process knows nothing of a line that is half written.
    """

    def __init__(self, stream: TextIO, erases: bool = False) -> None:
        self.failure: OSError | ValueError | None = None
        self._stream = stream
        self._erases = erases
        self._is_at_start = True  # of a line
        self._held = ""  # of a line that has not ended

    def write(self, text: str) -> int:
        try:
            if not self._erases:
                self._write(text)
            else:
                ended, end, rest = text.rpartition("\n")
                self._write_over(self._held + ended + end if end else "")
                self._held = rest if end else self._held + rest
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            self.failure = error
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            held, self._held = self._held, ""
            self._write_over(held)
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.failure = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _write_over(self, text: str) -> None:
        if text:
            self._write(ERASE_LINE + text if self._is_at_start else text)
            self._is_at_start = text.endswith("\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._stream.write(as_encoded(text, self._stream.encoding))


def make_output_lossy(erases: bool = False) -> None:
    """Have sys.stdout and sys.stderr raise nothing, for this program's code and for a policy's that prints.

    erases: on a terminal, see LossyStream.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, LossyStream):
            setattr(sys, name, LossyStream(stream, erases and stream.isatty()))


def lost_output() -> OSError | ValueError | None:
    """Why some of standard output was lost; None if nothing was, or make_output_lossy() was not called."""
    if not isinstance(sys.stdout, LossyStream):
        return None
    sys.stdout.flush()
    return sys.stdout.failure
