"""Flags from dataclasses; what is wrong with one ends the command with one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

from policyserve.cli.arguments import help_page, mistakes
from policyserve.cli.arguments.configuration import Given
from policyserve.cli.arguments.flags import build, flags_of
from policyserve.cli.arguments.values import read
from policyserve.cli.terminal import ARGUMENT_ERROR, complain, keep_output_harmless
from policyserve.core.errors import ConfigError

T = TypeVar("T")


def parse(
    arguments: type[T],
    prog: str,
    argv: Sequence[str],
    default: T | None = None,
    *,
    description: str | None = None,
    given: Given | None = None,
) -> T:
    """Read a dataclass of flags, `--a-b` and `--a_b` alike; exits with 2 and one line for a wrong one, with 0 for help.

    description: what --help says first; None: the dataclass's docstring. given: what a configuration adds to argv.
    """
    given = given or Given()
    keep_output_harmless()
    flags = flags_of(arguments, default)
    wanted = help_page.wanted(argv)
    try:
        if wanted is not None:
            told = arguments.__doc__ if description is None else description
            print(help_page.page(flags, wanted, prog, told or ""))
            sys.exit(0)
        words = [*argv, *given.words]
        mistake = mistakes.unknown(words, flags)
        values = None if mistake else read(words, flags)
        if values is None:
            told = given.blamed(mistake or mistakes.first(words, flags))
            complain(f"{told} ({prog} --help)", ARGUMENT_ERROR)
        return build(arguments, default, values, flags)
    except ConfigError as error:
        complain(given.blamed(str(error)), ARGUMENT_ERROR)
