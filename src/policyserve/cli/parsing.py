"""Flags from dataclasses; what is wrong with one ends the command with one line."""

from __future__ import annotations

import io
import re
from collections.abc import Container, Sequence
from contextlib import redirect_stderr
from typing import TypeVar

from policyserve.cli.configuration import Given
from policyserve.cli.keys import complaint_about_a_key
from policyserve.cli.terminal import ARGUMENT_ERROR, complain, keep_output_harmless
from policyserve.core.errors import ConfigError, PolicyserveError

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
    """Read a dataclass of flags, `--a-b` and `--a_b` alike; exits with 2 and one line for a wrong one.

    description: what --help says first; None: the dataclass's docstring. given: what a configuration adds to argv.
    """
    import tyro  # half of a command's start-up time: not before it is needed

    from policyserve.cli import server_flags

    given = given or Given()
    keep_output_harmless()
    said = io.StringIO()
    start = tyro.MISSING_NONPROP if default is None else default
    try:
        with redirect_stderr(said), server_flags.registry():
            return tyro.cli(
                arguments,
                prog=prog,
                description=description,
                args=[*argv, *given.words],
                default=start,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as exit_request:
        if not exit_request.code:
            raise
        told = complaint_about_a_key(argv) or f"{_first_sentence(said.getvalue())}; --help lists all flags"
        complain(f"{prog}: {given.blamed(told)}", ARGUMENT_ERROR)
    except ConfigError as error:
        complain(f"{prog}: {given.blamed(naming_flag(error))}", ARGUMENT_ERROR)


def naming_flag(error: PolicyserveError, names: Container[str] | None = None) -> str:
    """The error's text, with the flag instead of the field that it begins with. names: of fields; None: any is one."""
    name, colon, rest = str(error).partition(": ")
    is_field = name.isidentifier() if names is None else name in names
    return f"--{name.replace('_', '-')}{colon}{rest}" if is_field and colon else str(error)


def _first_sentence(box: str) -> str:
    """The words of the frame that tyro draws around an error, without the frame; suggestions in brackets."""
    rows = [row for line in box.splitlines() if (row := line.strip(" │"))][1:]  # the first is the frame's title
    sections: list[list[str]] = [[]]
    for row in rows:
        if row.strip("─-╭╮╰╯ "):  # tyro draws in ASCII where stdout is not UTF-8
            sections[-1].append(row)
        elif sections[-1]:
            sections.append([])
    message = " ".join(sections[0]).rstrip(".") or "the arguments cannot be read"
    near = [row.split(",")[0].split(" ")[0] for section in sections[1:] for row in section if row.startswith("--")]
    message = re.sub(r"^[Ee]rror parsing \w+: ", "", message)  # a check of ours, in its own words
    message = message[0].lower() + message[1:]
    return f"{message} (did you mean {near[0]}?)" if near and near[0] not in message else message
