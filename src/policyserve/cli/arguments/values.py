"""Words of a command line turned into values, by tyro.

Tyro is given one dataclass with a field for each flag, and says with its exit status whether it could read the words.
That rests on what it documents: `tyro.cli` with `console_outputs` and `add_help`, and `tyro.conf.arg`. It draws what it
has to say for people, in boxes and in other words from version to version; `mistakes` says it instead.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import field, make_dataclass
from typing import Annotated, Any

import tyro

from policyserve.cli.arguments.flags import NEEDED, Flag


def read(argv: Sequence[str], flags: Sequence[Flag]) -> dict[tuple[str, ...], Any] | None:
    """The value of each flag, by its path; None if a word cannot be read, or a flag that is needed is missing."""
    made: list[Any] = []
    for number, flag in enumerate(flags):
        kind = flag.kind if flag.is_word else Annotated[flag.kind, tyro.conf.arg(name=flag.name[2:], help="")]
        default = field() if flag.default is NEEDED else field(default_factory=lambda value=flag.default: value)
        made.append((f"value_{number}", kind, default))
    one_level: Any = make_dataclass("Values", made, kw_only=True)
    try:
        # What tyro draws of a value that it cannot read, it draws whatever console_outputs says.
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            config = (tyro.conf.AvoidSubcommands,)
            found = tyro.cli(one_level, args=argv, console_outputs=False, add_help=False, config=config)
    except SystemExit:
        return None
    return {flag.path: _expanded(flag, getattr(found, f"value_{number}")) for number, flag in enumerate(flags)}


def _expanded(flag: Flag, value: Any) -> Any:
    """The value; of a path, with its `~` replaced: shells leave it alone in `--flag=~/file`."""
    if not flag.is_path or value is None or value == flag.default:
        return value
    expanded = os.path.expanduser(value)
    return expanded if isinstance(value, str) else type(value)(expanded)
