"""What all subcommands do with a terminal: flags from dataclasses, one-line errors, logging."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import NoReturn, TypeVar

from policyserve.core.errors import ConfigError

ARGUMENT_ERROR = 2
FAILURE = 1

T = TypeVar("T")


def parse(arguments: type[T], prog: str, argv: Sequence[str], default: T | None = None) -> T:
    """Read a dataclass of flags, `--a-b` and `--a_b` alike; exits with 2 and one line for a wrong one."""
    import tyro  # half of a command's start-up time: not before it is needed

    said = io.StringIO()
    start = tyro.MISSING_NONPROP if default is None else default
    try:
        with redirect_stderr(said):
            return tyro.cli(arguments, prog=prog, args=argv, default=start, config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as exit_request:
        if not exit_request.code:
            raise
        complain(f"{prog}: {_first_sentence(said.getvalue())}; --help lists all flags", ARGUMENT_ERROR)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR)


def complain(message: str, exit_code: int) -> NoReturn:
    """Print one line to stderr and exit."""
    print(message, file=sys.stderr)
    raise SystemExit(exit_code)


def log_to_stderr(debug: bool) -> None:
    """Configure logging for the process: info and above, or everything of ours with `debug`."""
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("policyserve").setLevel(logging.DEBUG if debug else logging.INFO)


def _first_sentence(box: str) -> str:
    """The words of the frame that tyro draws around an error, without the frame; suggestions in brackets."""
    rows = [row.strip("│ ") for row in box.splitlines() if row.startswith("│")]
    sections: list[list[str]] = [[]]
    for row in rows:
        if row.strip("─"):
            sections[-1].append(row.strip())
        else:
            sections.append([])
    message = " ".join(sections[0]).rstrip(".") or "the arguments cannot be read"
    near = [row.split(",")[0].split(" ")[0] for section in sections[1:] for row in section if row.startswith("--")]
    message = message[0].lower() + message[1:]
    return f"{message} (did you mean {near[0]}?)" if near and near[0] not in message else message
