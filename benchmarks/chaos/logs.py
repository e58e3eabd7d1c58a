"""What a server's log must not hold, whatever peers and policies say: forged lines, control characters, long lines."""

from __future__ import annotations

from pathlib import Path

from .asks import FORGED

_LONGEST = 8192  # characters of a line
_SHOWN = 120


def faults(log: Path) -> list[str]:
    """What is wrong with it, each kind once; empty if nothing is."""
    found: dict[str, str] = {}
    with log.open("rb") as lines:
        for line in lines:
            text = line.removesuffix(b"\n").decode("utf-8", "replace")
            if text.startswith(FORGED):
                found.setdefault("a policy forged a line", text)
            if not text.replace("\t", " ").isprintable():
                found.setdefault("a line has control characters", text)
            if len(text) > _LONGEST:
                found.setdefault(f"a line has more than {_LONGEST} characters", text)
    return [f"log: {fault}: {text[:_SHOWN]!r}" for fault, text in found.items()]
