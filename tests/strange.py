"""Errors as strangers' libraries raise them, and as nobody should: by name, so that any process can raise one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from policyserve.core.errors import BadObservation, Overloaded, PolicyFailed, PolicyserveError

FORGED = "2001-01-01 00:00:00,000 INFO    policyserve: session 1 opened key=robot-7"


class Textless(Exception):
    """As of a library whose __str__ uses what is not there."""

    def __str__(self) -> str:
        return self.reason  # type: ignore[attr-defined]  # there is none


class Exiting(Exception):
    """Its text ends the program."""

    def __str__(self) -> str:
        sys.exit(3)


class Numeric(Exception):
    """Its text is none."""

    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class Evil(str):
    """A text whose every method raises."""

    def _raise(self, *_: Any) -> NoReturn:
        raise ZeroDivisionError

    __len__ = __getitem__ = __iter__ = __contains__ = __format__ = __repr__ = isprintable = encode = split = _raise  # type: ignore[assignment]


class EvilText(Exception):
    def __str__(self) -> str:
        return Evil("evil\x1b[2J")


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ZeroDivisionError

    def __hash__(cls) -> int:
        raise ZeroDivisionError

    def __eq__(cls, other: object) -> bool:
        raise ZeroDivisionError


class OfNoName(Exception, metaclass=Nameless):
    """Its class has no name that could be read, and compares with none."""


class Base(BaseException):
    """None of Exception's."""


class Circular(Exception):
    """It has itself as its cause."""

    def __init__(self) -> None:
        self.__cause__ = self


class Hollow(Exception):
    """False, and without what every error has."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    @property
    def __notes__(self) -> list[str]:
        raise ZeroDivisionError


class OwnTextless(PolicyserveError):
    """One of ours, by its class."""

    code = "own_textless"

    def __str__(self) -> str:
        raise ZeroDivisionError


class OwnCodeless(Overloaded):
    """One of ours that may be tried again, if one could read that."""

    @property
    def code(self) -> str:  # type: ignore[override]
        raise ZeroDivisionError


class OwnForging(BadObservation):
    code = "own\x1b[2J\nforged"
    blame = "nobody"  # type: ignore[assignment]


def _deep() -> None:
    _deep()


def _group() -> BaseException:
    if sys.version_info < (3, 11):
        return ValueError("a group")
    return BaseExceptionGroup("several\n" + FORGED, [Textless(), Base()])  # noqa: F821


_MADE: Mapping[str, Callable[[], BaseException]] = {
    "ordinary": lambda: ValueError("negative"),
    "without a text": Textless,
    "whose text exits": Exiting,
    "whose text is a number": Numeric,
    "whose text is evil": EvilText,
    "of a class without a name": OfNoName,
    "of a strange name": lambda: type("Odd\n\x1b", (Exception,), {})("odd"),
    "no utf-8": lambda: FileNotFoundError("caf\udce9.txt"),
    "forging": lambda: ValueError(f"unknown task x\n{FORGED}\x1b[2J\x9b31m\u202e"),
    "a megabyte": lambda: ValueError("A" * 1_000_000),
    "a hundred thousand lines": lambda: ValueError("\n".join([FORGED] * 100_000)),
    "its own cause": Circular,
    "hollow": Hollow,
    "no Exception": Base,
    "an exit": lambda: SystemExit("gone\x1b"),
    "an interrupt": KeyboardInterrupt,
    "a generator's end": GeneratorExit,
    "a cancelled task": asyncio.CancelledError,
    "an iterator's end": StopIteration,
    "an asynchronous iterator's end": StopAsyncIteration,
    "no memory": MemoryError,
    "a group": _group,
    "ours": lambda: PolicyFailed(f"no\n{FORGED}"),
    "ours, of an object": lambda: PolicyFailed(Textless()),
    "ours without a text": OwnTextless,
    "ours without a code": lambda: OwnCodeless("full"),
    "ours forging": lambda: OwnForging("x", "more", "less"),
}
STRANGE = [*_MADE, "recursion"]


def strange(name: str) -> NoReturn:
    """Raise the error of this name."""
    if name == "recursion":
        _deep()
    raise _MADE[name]()
