"""What all commands do with a terminal: complaints of one line, and output whose loss ends nothing."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from policyserve.cli.keys import without_keys
from policyserve.core.output import make_output_lossy
from policyserve.core.printable import one_line

ARGUMENT_ERROR = 2
FAILURE = 1
LONGEST_LINE = 10_000


def complain(message: str, exit_code: int) -> NoReturn:
    """Print one line to stderr, without the passwords of URLs, and exit, by raising SystemExit."""
    print(one_line(without_keys(message), LONGEST_LINE), file=sys.stderr)
    raise SystemExit(exit_code)


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
