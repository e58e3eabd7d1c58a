"""`policyserve doctor`: examine any policy server, and say what is wrong and what to do about it."""

from __future__ import annotations

import json as writer
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from policyserve import dialects
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.colours import coloured
from policyserve.cli.keys import key_from_environment, key_from_file
from policyserve.cli.layout import columns_of, wrapped
from policyserve.cli.terminal import ARGUMENT_ERROR, complain, warn_of_keys
from policyserve.core.errors import ConfigError
from policyserve.doctor.examination import Brought, examine
from policyserve.doctor.findings import Diagnosis, Finding
from policyserve.doctor.given import read_example, read_frame
from policyserve.doctor.report import ARROW, COLOURS, SIGNS, last_line, rows
from policyserve.doctor.server import Examined

PROG = "policyserve doctor"


@dataclass(frozen=True)
class DoctorFlags:
    """Examine a policy server, ours or another of openpi's, Wall-X's or vibe_rl's family, and say what to do.

    It ends with 0 if all is well, with 1 if there is something to look at, with 2 if a robot would not be served. A key
    that the server asks for is taken from the environment, POLICYSERVE_API_KEY, or from a file.
    """

    url: Annotated[Positional[str], arg(metavar="URL")] = field(repr=False)
    """ws://host:port, wss://host:port or ws+unix:///path/to/socket."""
    example: Path | None = None
    """Ask with this observation: an .npz of arrays by their keys, or a .json file such as {"image": {"shape":
    [64, 64, 3], "dtype": "uint8"}, "prompt": {"text": "go"}}. None: what the server says it takes."""
    frame: Path | None = None
    """A client's recorded message, the raw bytes of one request: what the server's spec dislikes in it, key by key."""
    dialect: str = "auto"
    """openpi, wall_x, vibe_rl; auto finds it out."""
    json: bool = False
    """Print one JSON object, and nothing else."""
    api_key_file: Path | None = None
    """A file whose first line holds the key, `name: key` or `key`, as the server's own has it."""
    timeout_s: float = 5.0
    """For each step."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        if self.dialect != "auto":
            dialects.by_name(self.dialect)
        if not 0 < self.timeout_s <= 3600:
            raise ConfigError(f"--timeout-s: expected more than 0 and at most 3600, got {self.timeout_s!r}")


def main(argv: Sequence[str]) -> None:
    """Examine the server that the arguments name; exits with 0, 1 or 2, also with 2 for wrong arguments."""
    flags = parse(DoctorFlags, PROG, argv)
    try:
        key = key_from_environment() if flags.api_key_file is None else key_from_file(flags.api_key_file)
        server = Examined(flags.url, flags.dialect, key, flags.timeout_s)
        brought = _brought(flags)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    warn_of_keys(flags.url)
    try:
        diagnosis = _examine(server, brought, is_told=not flags.json)
    except KeyboardInterrupt:
        complain("interrupted before all was examined", 130)
    if flags.json:
        print(writer.dumps(diagnosis.as_json(), indent=2))
    sys.exit(diagnosis.status)


def _brought(flags: DoctorFlags) -> Brought:
    return Brought(
        None if flags.example is None else read_example(flags.example),
        "" if flags.example is None else flags.example.name,
        None if flags.frame is None else read_frame(flags.frame, flags.dialect),
        "" if flags.frame is None else flags.frame.name,
    )


def _examine(server: Examined, brought: Brought, *, is_told: bool) -> Diagnosis:
    diagnosis = Diagnosis(server.address.url.removesuffix("/"))
    if is_told:
        print(f"{coloured(diagnosis.url, 'bold', sys.stdout)}\n", flush=True)
    for finding in examine(server, brought):
        diagnosis.findings.append(finding)
        if is_told:
            _show(finding)
    if is_told:
        told = coloured(last_line(diagnosis), COLOURS[diagnosis.verdict], sys.stdout)
        print(f"\n{told}", flush=True)
    return diagnosis


def _show(finding: Finding) -> None:
    """Print a finding in the terminal's columns."""
    columns = columns_of(sys.stdout)
    for before, blank, text in rows(finding):
        sign = SIGNS[finding.verdict]
        shown = before.replace(sign, coloured(sign, COLOURS[finding.verdict], sys.stdout), 1)
        shown = shown.replace(ARROW, coloured(ARROW, "cyan", sys.stdout))
        for number, line in enumerate(wrapped(text, columns - len(before))):
            print(f"{blank if number else shown}{line}", flush=True)
