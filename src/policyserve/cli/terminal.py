"""What all commands do with a terminal: errors and warnings of one line, and output whose loss ends nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

from policyserve.cli.colours import Colour, coloured
from policyserve.cli.keys import VARIABLE, without_keys
from policyserve.cli.layout import columns_of, wrapped
from policyserve.client.address import has_key
from policyserve.core.errors import ConfigError
from policyserve.core.output import make_output_lossy
from policyserve.core.printable import one_line

ARGUMENT_ERROR = 2
FAILURE = 1
LONGEST_LINE = 10_000
_CONTINUED = "\n    "
_ARE_RAISED: ContextVar[bool] = ContextVar("complaints are raised", default=False)


@contextmanager
def complaints_raised() -> Iterator[None]:
    """Have complain() raise ConfigError in here, in this thread: a server that reads flags goes on."""
    before = _ARE_RAISED.set(True)
    try:
        yield
    finally:
        _ARE_RAISED.reset(before)


def complain(message: str, exit_code: int) -> NoReturn:
    """Print `error: message` to stderr, without the passwords of URLs, and exit, by raising SystemExit.

    It is one line, which a terminal shows in several that are broken at blanks.
    """
    if _ARE_RAISED.get():
        raise ConfigError(without_keys(message))
    _tell("error:", "red", message)
    raise SystemExit(exit_code)


def take_no_arguments(argv: Sequence[str], prog: str, purpose: str) -> None:
    """Read the arguments of a command that has none: exits with 0 after --help, with 2 for any other word."""
    if not argv:
        return
    if argv[0] in ("-h", "--help", "--help-all"):
        print(f"usage: {prog}\n\n{purpose}")
        sys.exit(0)
    told = f"unknown flag {argv[0]}" if argv[0].startswith("-") else f"unexpected word {argv[0]!r}"
    complain(f"{told} ({prog} --help)", ARGUMENT_ERROR)


def warn(message: str) -> None:
    """Print `warning: message` to stderr, as complain() prints an error."""
    _tell("warning:", "yellow", message)


def warn_of_keys(*urls: str | None) -> None:
    """Say on stderr, once, that a URL's password is in the list of processes."""
    if any(has_key(url) for url in urls if url is not None):
        warn(f"everybody on this machine can read the key in a URL (ps shows it): {VARIABLE} is a place for it")


def keep_output_harmless() -> None:
    """Have nothing that is said to people end the program: not a full disk, a closed pipe, or a terminal's encoding.

    Descriptors 0 to 2 are opened where they are closed. Else a socket would get such a number, and a library that
    prints would write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the program
    make_output_lossy()


def _tell(word: str, colour: Colour, message: str) -> None:
    told = one_line(without_keys(message), LONGEST_LINE)
    if sys.stderr.isatty():
        told = _CONTINUED.join(wrapped(told, columns_of(sys.stderr) - len(word) - 2))
    print(coloured(word, colour, sys.stderr), told, file=sys.stderr)
