"""Files that a command will write: what is wrong with one is found before the work that fills it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest

STDOUT = Path("-")


def check_target(option: str, path: Path | None, endings: Sequence[str] = ()) -> None:
    """Raise ConfigError if a file cannot be written there; endings: of the names that are known, all if empty.

    What is there stays as it is, and nothing is left where nothing was.
    """
    if path is None or (path == STDOUT and not endings):
        return
    if path.is_dir():  # pathlib's path of nothing is one
        raise ConfigError(f"--{option}: expected a file, got the directory {path.absolute()}")
    if endings and path.suffix.lower() not in endings:
        expected = " or ".join(part for part in (", ".join(endings[:-1]), endings[-1]) if part)
        raise ConfigError(f"--{option}: expected a file that ends in {expected}, got {path}{_hint(path, endings)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--{option}: there is no directory {path.absolute().parent}")
    if path.exists() and not path.is_file():
        return  # a device or a pipe: looking into it would take something out, or wait
    is_new = not path.exists()
    try:
        with path.open("ab"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"--{option}: {path} cannot be written: {error.strerror or error}") from error


def check_apart(**paths: Path | None) -> None:
    """Raise ConfigError if two of a command's options name one file, of which only the last would be left."""
    named = [(option, path.absolute()) for option, path in paths.items() if path is not None and path != STDOUT]
    for number, (option, path) in enumerate(named):
        for other, same in named[:number]:
            if path == same:
                raise ConfigError(f"--{other} and --{option}: expected two files, got {path} for both")


def people_read(json_file: Path | None) -> TextIO:
    """Where a command prints what people read: stderr where stdout is asked for as a file of figures."""
    return sys.stderr if json_file == STDOUT else sys.stdout


def write_json(option: str, path: Path | None, document: dict[str, Any]) -> None:
    """Write figures to a file, or to stdout where it is `-`; raises ConfigError if it cannot be written."""
    if path is None:
        return
    text = json.dumps(document, indent=2) + "\n"
    if path == STDOUT:
        print(text, end="", flush=True)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--{option}: {path} cannot be written: {error.strerror or error}") from error


def _hint(path: Path, endings: Sequence[str]) -> str:
    near = nearest(path.suffix, endings)
    return f" (did you mean {path.with_suffix(near).name}?)" if path.suffix and near else ""
