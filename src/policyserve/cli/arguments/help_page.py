"""A command's help: the flags that people use, all of them, or one group's, within the terminal's width."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from policyserve.cli.arguments.flags import COMMON, NEEDED, Flag
from policyserve.cli.colours import coloured
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest

USUAL, ALL = "", "all"
POLICY = "policy"  # the group of a policy's own flags, which commands hold in a field of this name
_WIDEST = 100  # columns: longer lines are hard to read
_INDENT = 2
_KEPT = "\u00a0"  # a space at which no line ends
_HELP_COLUMN = 30


def wanted(argv: Sequence[str]) -> str | None:
    """Which help the words ask for: USUAL, ALL, or a group's name; None if they ask for none."""
    for word in argv:
        if word == "--":
            return None
        if word in ("-h", "--help"):
            return USUAL
        if word.replace("_", "-") == "--help-all":
            return ALL
        if word.startswith("--help="):
            return word.partition("=")[2]
    return None


def without_help(argv: Sequence[str]) -> list[str]:
    """The words but for those that ask for help."""
    return [word for word in argv if wanted([word]) is None]


def page(flags: Sequence[Flag], asked: str, prog: str, description: str) -> str:
    """The help that was asked for; raises ConfigError for a group that is not there, with a guess."""
    groups = list(dict.fromkeys(flag.group for flag in flags))
    if asked not in (USUAL, ALL, *groups):
        guess = nearest(asked, groups)
        known = f"did you mean --help={guess}?" if guess else f"there are {', '.join(groups)}"
        raise ConfigError(f"there is no group {asked!r} of flags; {known}")
    flags = sorted(flags, key=lambda flag: not flag.is_word)
    sections = _sections(flags, asked)
    words = "".join(f"{flag.name} " for flag in flags if flag.is_word)
    lines = [f"usage: {prog} {words}[flags]"]
    if asked in (USUAL, ALL):
        lines += ["", *paragraphs(description)]
    for title, inside in sections.items():
        lines += ["", *([coloured(f"{title}:", "bold", sys.stdout)] if len(sections) > 1 else [])]
        lines += [line for flag in inside for line in _about(flag)]
    is_all = sum(map(len, sections.values())) == len(flags)
    return "\n".join(lines if is_all else [*lines, "", *_where_the_others_are(len(flags), groups)])


def paragraphs(text: str) -> list[str]:
    """A docstring in lines that fit, an empty one between its paragraphs."""
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    wrapped = [textwrap.wrap(part, width()) for part in parts if part]
    return [line for part in wrapped for line in [*part, ""]][:-1]


def entry(name: str, told: str, column: int = _HELP_COLUMN) -> list[str]:
    """A name, and behind it what it is, in lines that fit."""
    left = f"{' ' * _INDENT}{name}"
    lines = textwrap.wrap(told, max(20, width() - column), break_long_words=False, break_on_hyphens=False) or [""]
    shown = left.replace(name, coloured(name, "cyan", sys.stdout), 1)
    lines = [line.replace(_KEPT, " ") for line in lines]
    if len(left) + 2 > column:
        return [shown, *(" " * column + line for line in lines if line)]
    first = f"{shown}{' ' * (column - len(left))}{lines[0]}".rstrip()
    return [first, *(" " * column + line for line in lines[1:])]


def width() -> int:
    """The columns that lines may have: the terminal's, and 80 in a pipe."""
    return min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)


def shown_value(value: Any) -> str:
    """A default as it would be typed; empty where there is none."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def _sections(flags: Sequence[Flag], asked: str) -> dict[str, list[Flag]]:
    """The flags that were asked for, by title: the policy's first, since the server's are many."""
    found: dict[str, list[Flag]] = {POLICY: [], COMMON: []}
    for flag in flags:
        if asked in (ALL, flag.group):
            found.setdefault(flag.group, []).append(flag)
        elif asked == USUAL and flag.is_usual:
            found[POLICY if flag.path[0] == POLICY else COMMON].append(flag)
    return {title: inside for title, inside in found.items() if inside}


def _about(flag: Flag) -> list[str]:
    default = "" if flag.default is NEEDED else shown_value(flag.default)
    added = f"(default: {default})" if default else ""
    name = flag.name
    if flag.is_switch and flag.default is True:
        before, dot, last = name[2:].rpartition(".")
        name = f"--{before}{dot}[no-]{last}"
    called = f"{name} {'' if flag.is_word else flag.value_name}".rstrip()
    if not flag.help:
        return [f"{entry(called, '')[0]} {added}".rstrip()]
    return entry(called, f"{_sentence(flag.help)} {added.replace(' ', _KEPT)}".rstrip())


def _sentence(told: str) -> str:
    """A flag's help with a capital letter, if it begins with a word, and without a full stop."""
    first, space, rest = told.rstrip(".").partition(" ")
    return f"{first[:1].upper() + first[1:] if first.isalpha() and first.islower() else first}{space}{rest}"


def _where_the_others_are(number: int, groups: Sequence[str]) -> list[str]:
    others = ", ".join(group for group in groups if group not in (POLICY, COMMON))
    told = f"--help-all lists all {number} flags, --help=GROUP those of one group: {others}"
    return textwrap.wrap(told, width(), break_on_hyphens=False)
