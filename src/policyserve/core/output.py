"""Standard output and error of a program that has to go on when they cannot be written."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO


class LossyStream:
    """A text stream that raises nothing when it is written to.

    Characters that its encoding lacks become `?`. What a full disk, a closed pipe or a closed file refuses is lost.
    failure: why something was lost, the last time; None if nothing was.
    """

    def __init__(self, stream: TextIO) -> None:
        self.failure: OSError | ValueError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._write(text)
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            self.failure = error
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.failure = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._stream.write(text.encode(encoding, "replace").decode(encoding))


def make_output_lossy() -> None:
    """Have sys.stdout and sys.stderr raise nothing, for this program's code and for a policy's that prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, LossyStream):
            setattr(sys, name, LossyStream(stream))


def lost_output() -> OSError | ValueError | None:
    """Why some of standard output was lost; None if nothing was, or make_output_lossy() was not called."""
    if not isinstance(sys.stdout, LossyStream):
        return None
    sys.stdout.flush()
    return sys.stdout.failure
