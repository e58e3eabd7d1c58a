"""`policyserve view`: look at a recording in Rerun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from policyserve.cli.arguments.parsing import parse
from policyserve.cli.targets import check_target
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.recordings.reading import open_recording
from policyserve.recordings.viewing import show

PROG = "policyserve view"


@dataclass(frozen=True)
class ViewFlags:
    """Look at a recording in Rerun: cameras as pictures, states and actions as lines over time, by session."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A .mcap file of `policyserve serve --record` or `policyserve record`."""
    save: Path | None = None
    """Open no window, and write an .rrd file for Rerun instead."""


def main(argv: Sequence[str]) -> None:
    """Show the file that the arguments name; exits with 1 if it cannot be shown, with 2 for wrong arguments."""
    flags = parse(ViewFlags, PROG, argv)
    try:
        check_target("save", flags.save, (".rrd",))
        recording = open_recording(flags.file)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    try:
        count = show(recording, flags.save)
    except (PolicyserveError, OSError) as error:
        complain(str(error), FAILURE)
    where = "Rerun" if flags.save is None else str(flags.save)
    requests = f"{count} request{'' if count == 1 else 's'}"
    sessions = f"{len(recording.sessions)} session{'' if len(recording.sessions) == 1 else 's'}"
    print(f"{requests} of {sessions} in {where}{'; the recording was cut there' if recording.facts.is_cut else ''}")
