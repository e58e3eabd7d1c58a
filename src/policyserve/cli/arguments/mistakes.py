"""What is wrong with the words of a command line, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from policyserve.cli.arguments.flags import NEEDED, Flag
from policyserve.cli.arguments.values import read
from policyserve.cli.keys import complaint_about_a_key
from policyserve.core.nearest import nearest

_FLAG = re.compile(r"--?[A-Za-z]")
_NUMBER = re.compile(r"-(inf|nan|infinity)", re.IGNORECASE)
_DASHES = "-\u2010\u2012\u2013\u2014\u2212"  # editors and web pages make others of two hyphens
_ALIKE = 0.75  # below that a guess names flags that have nothing to do with the word


@dataclass(frozen=True)
class Typed:
    """A flag as it was typed, and the words behind it up to the next flag. flag: None if there is no such flag."""

    word: str
    flag: Flag | None
    behind: tuple[str, ...]

    @property
    def key(self) -> str:
        """The flag without a value that `=` joins to it."""
        return self.word.partition("=")[0]

    @property
    def taken(self) -> tuple[str, ...]:
        """The words behind it that are its value."""
        if self.flag is None or self.flag.is_switch or "=" in self.word:
            return ()
        return self.behind if self.flag.takes_many else self.behind[:1]


def is_flag(word: str) -> bool:
    """Whether it is a flag by its spelling, and no value such as -5."""
    return _FLAG.match(word) is not None and _NUMBER.fullmatch(word) is None


def take_apart(argv: Sequence[str], flags: Sequence[Flag]) -> tuple[list[str], list[Typed]]:
    """The words that belong to no flag, and the flags with the words behind them."""
    by_name = {name: flag for flag in flags for name in flag.names}
    end = list(argv).index("--") if "--" in argv else len(argv)
    starts = [number for number, word in enumerate(argv[:end]) if is_flag(word)]
    typed = []
    for start, stop in zip(starts, [*starts, end][1:], strict=True):
        name = argv[start].partition("=")[0].replace("_", "-")
        typed.append(Typed(argv[start], by_name.get(name), tuple(argv[start + 1 : stop])))
    before = argv[: starts[0] if starts else end]
    between = [word for one in typed for word in one.behind[len(one.taken) :]]
    return [*before, *between, *argv[end + 1 :]], typed


def unknown(argv: Sequence[str], flags: Sequence[Flag]) -> str | None:
    """What to say of the first flag that nothing is called; None if all are known."""
    strange = [typed for typed in take_apart(argv, flags)[1] if typed.flag is None]
    if not strange:
        return None
    of_a_key = complaint_about_a_key([typed.word for typed in strange])
    if of_a_key is not None:
        return of_a_key
    guess = _guess(strange[0].key, flags)
    words = " ".join([strange[0].word, *strange[0].behind[:1]])
    return f"unknown flag {words}" + (f"; did you mean {guess}?" if guess else "")


def first(argv: Sequence[str], flags: Sequence[Flag]) -> str:
    """What to say of the first mistake in a command line that has one."""
    return next(_mistakes(argv, flags), "these flags cannot be read together")


def _mistakes(argv: Sequence[str], flags: Sequence[Flag]) -> Iterator[str]:
    words, typed = take_apart(argv, flags)
    for one in typed:
        if one.flag is not None and read([one.word, *one.taken], [one.flag]) is None:
            yield _about_value(one, one.flag)
    places = [flag for flag in flags if flag.is_word]
    for word, flag in zip(words, places, strict=False):  # one of both may end first
        if not flag.takes_many and read([word], [flag]) is None:
            yield f"{flag.name}: expected {flag.expected}, got {word!r}"
    for word in words[len(places) :]:
        yield _about_word(word, typed, flags)
    there = {one.flag.path for one in typed if one.flag is not None}
    for flag in [*places[len(words) :], *(flag for flag in flags if not flag.is_word)]:
        if flag.default is NEEDED and flag.path not in there:
            told = flag.help.partition(";")[0].rstrip(".")
            yield f"{flag.name} is missing" + (f": {told}" if told else "")


def _about_value(typed: Typed, flag: Flag) -> str:
    if flag.is_switch:
        return f"{typed.key}: expected no value behind it, got {typed.word!r}"
    got = typed.word.partition("=")[2] if "=" in typed.word else " ".join(typed.taken)
    guess = nearest(got, flag.choices)
    told = f"; did you mean {guess}?" if guess else ""
    return f"{typed.key}: expected {flag.expected}, got {repr(got) if got else 'nothing'}{told}"


def _about_word(word: str, typed: Sequence[Typed], flags: Sequence[Flag]) -> str:
    meant = "--" + word.lstrip(_DASHES)
    if word != meant and meant.partition("=")[0].replace("_", "-") in _names(flags):
        return f"unexpected word {word!r}; did you mean {meant}?"
    before = next((one for one in typed if word in one.behind[len(one.taken) :]), None)
    behind = "" if before is None else f" behind {' '.join([before.word, *before.taken])}"
    behind = behind or (" behind --" if is_flag(word) else "")
    return f"unexpected word {word!r}{behind}"


def _guess(word: str, flags: Sequence[Flag]) -> str | None:
    """The flag that was probably meant: by its last part, by its beginning, or by its letters."""
    names = _names(flags)
    wanted = word.lstrip("-").replace("_", "-").casefold()
    same = [name for name in names if name.rpartition(".")[2] == wanted]
    longer = [flag.name for flag in flags if flag.is_usual and flag.name.startswith(f"--{wanted}-")]
    found = [*same, *longer]
    if found or len(wanted) == 1:  # one letter is like anything short
        return found[0] if found else None
    return nearest(f"--{wanted}", names, _ALIKE)


def _names(flags: Sequence[Flag]) -> list[str]:
    return [*(name for flag in flags for name in flag.names), "--help", "--help-all"]
