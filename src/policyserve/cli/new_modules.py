"""Writes Python modules that were not there: nothing is overwritten, and nobody's import is hidden by their names."""

from __future__ import annotations

import keyword
import os
import re
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

from policyserve.core.errors import ConfigError

_EXAMPLE = "my_policy"


def check_new_module(text: str) -> Path:
    """The file that the user named, where a module can be written; raises ConfigError that says what to do instead."""
    path = Path(os.path.expanduser(text))  # which leaves `~nobody` as it is
    if not text.strip():
        raise ConfigError(f"expected a file to write, such as {_EXAMPLE}.py, got nothing")
    if os.path.isdir(path) or text.endswith(("/", os.sep)):
        raise ConfigError(f"{text}: expected a file, got a folder; write {path / _EXAMPLE}.py")
    if path.suffix != ".py":
        raise ConfigError(f"{text}: expected a Python file; write {path.with_name(_module_name(path.name))}.py")
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        cure = path.with_name(f"{_module_name(path.stem)}.py")
        raise ConfigError(f"{text}: {path.stem!r} is no name that Python can import; write {cure}")
    if not os.path.isdir(path.parent):
        is_there = os.path.lexists(path.parent)
        cure = "it is a file" if is_there else f"mkdir -p {path.parent} makes it"
        raise ConfigError(f"{text}: there is no folder {path.parent}; {cure}")
    if os.path.lexists(path):
        raise _exists(path)
    if _is_taken(path.stem):
        cure = path.with_name(f"my_{path.name}")
        raise ConfigError(f"{text}: Python has a module {path.stem!r}, which this file would hide; write {cure}")
    return path


def write_new_module(path: Path, text: str) -> None:
    """Write a file that is not there; raises ConfigError, and leaves nothing half written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        if os.path.lexists(path) and not isinstance(error, PermissionError):
            with suppress(OSError):
                path.unlink()
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _exists(path: Path) -> ConfigError:
    return ConfigError(f"{path} is there already and stays as it is; choose another name, or remove it")


def _module_name(text: str) -> str:
    """The name nearest to `text` that a module can have."""
    name = re.sub(r"\W+", "_", text).strip("_") or _EXAMPLE
    return f"policy_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def _is_taken(name: str) -> bool:
    """Whether Python's library or an installed package has this name; a module of this directory does not count."""
    if name in sys.stdlib_module_names or name == "policyserve":
        return True
    elsewhere = [entry for entry in sys.path if entry and Path(entry) != Path.cwd()]
    found = PathFinder.find_spec(name, elsewhere)
    return found is not None and found.origin is not None
