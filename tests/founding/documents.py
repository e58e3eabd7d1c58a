"""The founding documents, taken apart: every command and every other code block, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A fenced block, or an inline piece of code that is a command.
_CODE = re.compile(r"^```(?P<language>\w*)\n(?P<block>.*?)^```$|`(?P<inline>(?:pip|python|curl) [^`]+)`", re.M | re.S)


@dataclass(frozen=True)
class Piece:
    """One command (language "bash") or one whole block of another language, and where it stands."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def read_pieces(path: Path) -> list[Piece]:
    """All code of a document."""
    return list(_pieces(path.stem, path.read_text(encoding="utf-8")))


def _pieces(document: str, text: str) -> Iterator[Piece]:
    for found in _CODE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        language = "bash" if found["inline"] else found["language"]
        code = found["inline"] or found["block"]
        if language == "bash":
            for command in _commands(code):
                yield Piece(document, line, language, command)
        else:
            yield Piece(document, line, language, code)


def _commands(block: str) -> Iterator[str]:
    """The commands of a shell block, a line each."""
    for line in block.replace("\\\n", " ").splitlines():
        command = " ".join(line.split())
        if command and not command.startswith("#"):
            yield command
