"""`policyserve export`: a recording as files of another format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from policyserve.cli.arguments.parsing import parse
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.recordings.exporting import export_npz
from policyserve.recordings.reading import open_recording

PROG = "policyserve export"


@dataclass(frozen=True)
class ExportFlags:
    """Write a recording's observations and actions as files of another format, one for each session."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A .mcap file of `policyserve serve --record` or `policyserve record`."""
    to: Literal["npz"] = "npz"
    """NumPy's: an array for each key, with an axis of steps in front."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """The directory for them. None: one beside FILE, of its name."""


def main(argv: Sequence[str]) -> None:
    """Export the file that the arguments name; exits with 1 if that fails, with 2 for wrong arguments."""
    flags = parse(ExportFlags, PROG, argv)
    try:
        recording = open_recording(flags.file)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    directory = flags.file.with_suffix("") if flags.out is None else flags.out
    try:
        written = export_npz(recording, directory)
    except OSError as error:
        complain(f"--out: {directory} cannot be written: {error.strerror or error}", FAILURE)
    except PolicyserveError as error:
        complain(str(error), FAILURE)
    if not written:
        complain(f"{flags.file}: expected a request with an answer, got none", FAILURE)
    print("\n".join(map(str, written)))
