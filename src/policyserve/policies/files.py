"""Reading the files of a checkpoint: whatever is wrong with one is a ConfigError that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError, PolicyserveError

_LONGEST = 300  # characters of a parser's own words
_PANIC = "PanicException"  # what libraries in Rust raise for a fault of their own; it is no Exception


@contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Turn what reading a file raises in here into a ConfigError: the path, what was expected, and why it is not that.

    Parsers raise more than they document: RecursionError for deep nesting, MemoryError, ValueError for bytes that are
    no UTF-8 or a number of too many digits, a panic. Our own errors pass as they are.
    """
    try:
        yield
    except PolicyserveError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: expected {expected}, got {_reason(error)}") from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:  # Ctrl-C, say
            raise
        raise ConfigError(f"{path}: expected {expected}, got {_reason(error)}") from error


def read_json(path: str | Path, expected: str = "JSON") -> Any:
    """Parse a JSON file; raises ConfigError. A NaN in it is a float, and its reader's to refuse."""
    with reading(path, expected):
        return json.loads(Path(path).read_bytes())


def stamp_of(*paths: Path) -> tuple[tuple[int, int], ...]:
    """Size and time of change of files; raises ConfigError for one that is gone."""
    with reading(paths[0], "a file"):
        return tuple((found.st_size, found.st_mtime_ns) for found in (path.stat() for path in paths))


def _reason(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"an error of the system: {error.strerror}"
    if isinstance(error, RecursionError):
        return "values that are nested too deep"
    if isinstance(error, MemoryError):
        return "more than memory holds"
    return " ".join(str(error).split())[:_LONGEST] or type(error).__name__
