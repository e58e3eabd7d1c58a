"""What the reader of pickles (core/pickles.py) gives and is told: Things that were not made, and what is expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PERSISTENT = "persistent id"  # the kind of a Thing that stands for what lies outside the pickle


@dataclass(eq=False)
class Thing:
    """Something that a pickle describes and that was not made.

    kind: `module name` of the global. args: what it is called with; None: the global itself. items: what was set in it
    as in a map. state: what its own __setstate__ would get.
    """

    kind: str
    args: tuple[Any, ...] | None = None
    items: dict[str, Any] = field(default_factory=dict)
    state: Any = None


@dataclass(frozen=True)
class Vocabulary:
    """What a caller expects in its pickles.

    knows: whether a global may be named, by `module name`; PERSISTENT asks for persistent ids. opcodes: their names, as
    pickletools has them; None: all that read_pickle() reads. whose: who writes no other opcodes, for errors.
    """

    knows: Callable[[str], bool]
    most_ops: int
    whose: str
    opcodes: frozenset[str] | None = None


class PickleFault(Exception):
    """What is wrong with a pickle, in words that follow `got`. place: the byte behind it."""

    place = 0


def told_of(value: Any) -> str:
    """What an error tells of a value from a pickle: a short text or number itself, of others the kind."""
    if isinstance(value, Thing):
        return value.kind
    is_short = value is None or isinstance(value, (str, bool, float))
    return f"{value!r:.100}" if is_short else type(value).__name__
