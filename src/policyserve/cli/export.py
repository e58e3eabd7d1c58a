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
from policyserve.recordings.exporting_lerobot import export_lerobot
from policyserve.recordings.reading import Recording, open_recording

PROG = "policyserve export"


@dataclass(frozen=True)
class ExportFlags:
    """Write a recording's observations and actions as files of another format."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A .mcap file of `policyserve serve --record` or `policyserve record`."""
    to: Literal["npz", "lerobot"] = "npz"
    """npz: NumPy's, a file for each session, an array for each key, with an axis of steps in front. lerobot: a
    dataset, an episode for each session; needs the lerobot package."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """The directory for them. None: one beside FILE, of its name."""
    fps: Annotated[int | None, arg(metavar="N")] = None
    """Of a LeRobot dataset, its frames in a second. None: as often as the sessions asked."""


def main(argv: Sequence[str]) -> None:
    """Export the file that the arguments name; exits with 1 if that fails, with 2 for wrong arguments."""
    flags = parse(ExportFlags, PROG, argv)
    if flags.fps is not None and (flags.to != "lerobot" or flags.fps < 1):
        expected = "expected 1 or more" if flags.to == "lerobot" else "expected none without --to lerobot"
        complain(f"--fps: {expected}, got {flags.fps}", ARGUMENT_ERROR)
    try:
        recording = open_recording(flags.file)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    directory = flags.file.with_suffix("") if flags.out is None else flags.out
    try:
        written = _exported(recording, directory, flags)
    except OSError as error:
        complain(f"--out: {directory} cannot be written: {error.strerror or error}", FAILURE)
    except PolicyserveError as error:
        complain(str(error), ARGUMENT_ERROR if type(error) is ConfigError else FAILURE)
    if not written:
        complain(f"{flags.file}: expected a request with an answer, got none", FAILURE)
    print("\n".join(written))


def _exported(recording: Recording, directory: Path, flags: ExportFlags) -> list[str]:
    """What was written, a line for each."""
    if flags.to == "npz":
        return [str(path) for path in export_npz(recording, directory)]
    episodes = export_lerobot(recording, directory, flags.fps)
    return [f"{episodes} episode{'s' if episodes > 1 else ''} in {directory}"] if episodes else []
