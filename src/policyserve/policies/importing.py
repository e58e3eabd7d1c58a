"""Imports code of the user's, named as a module or as a file, and says in one line what is wrong with it."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.core.nearest import nearest
from policyserve.core.printable import UNPRINTABLE, type_name

log = Log(__name__)

_changed_at: dict[str, int] = {}  # the files of modules that were imported: when each had changed last by then
_OURS = str(Path(__file__).parents[1]) + os.sep  # where policyserve is
_NO_PACKAGE = "attempted relative import with no known parent package"


def is_file(name: str) -> bool:
    """Whether `name` is a file's path and not a module's name, by its spelling."""
    return name.endswith(".py") or "/" in name or os.sep in name


def is_module(name: str) -> bool:
    """Whether there is such a module here or on the Python path, by its first part, which is not imported."""
    _add_to_path("")
    try:
        return find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):  # no name of a module, or a broken one
        return False


def import_from_here(name: str) -> ModuleType:
    """Import a module that is on the Python path or in the working directory; raises ConfigError."""
    _add_to_path("")
    try:
        return _as_it_was(import_module(name))
    except (Exception, SystemExit) as error:  # a stranger's module
        if isinstance(error, ModuleNotFoundError) and error.name is not None and _is_within(name, error.name):
            near = "" if "." in name else _nearest(modules_here(), name)
            raise ConfigError(f"there is no module {error.name!r} here or on the Python path{near}") from error
        raise ConfigError(f"{name} cannot be imported: {_advised(error, Path.cwd() / name)}") from error


def import_file(path: Path) -> ModuleType:
    """Import a file as Python would import it from its directory, or from above the packages that it is in.

    Raises ConfigError, also where the file cannot have its name because another module has it.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    if "." in path.stem:
        raise ConfigError(f"{path}: expected a name without a dot before .py: rename the file")
    root, name = _place_of(path)
    _add_to_path("")
    _add_to_path(str(root))
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:  # a stranger's module
        raise ConfigError(f"{path} cannot be imported: {_advised(error, path)}") from error
    place = getattr(module, "__file__", None)  # what is built into Python has none
    if place is None or not path.samefile(place):
        raise ConfigError(f"{path}: Python has another module called {name!r}: rename the file")
    return _as_it_was(module)


def _as_it_was(module: ModuleType) -> ModuleType:
    """The module; a process imports it once, which is told where its file has changed since."""
    place = getattr(module, "__file__", None)
    if place is not None and os.path.isfile(place):
        changed_at = os.stat(place).st_mtime_ns
        if _changed_at.setdefault(place, changed_at) != changed_at:
            told = "%s has changed since this process imported it, and its code from before answers: %s"
            log.warning(told, place, "with --isolate process each policy has a process of its own, which imports anew")
    return module


def find_in(module: ModuleType, name: str, called: str) -> Any:
    """What `module` calls `name`, which may have dots; called: the module in the words of the user.

    Raises ConfigError with the nearest name that is there.
    """
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            whose = called if found is module else f"{called}:{name.partition('.' + part)[0]}"
            raise ConfigError(
                f"{called}:{name} does not exist: {whose} has no {part!r}{_nearest(_public(found), part)}"
            )
        found = getattr(found, part)
    return found


def reason(error: BaseException) -> str:
    """The error's kind, its text and the line of the user's code that raised it: `KeyError: 'x' (robot.py, line 3)`."""
    if isinstance(error, SystemExit):
        text = f"it ended the program with {error.code!r}"
    else:
        said = _said(error)
        text = f"{type_name(error)}: {said}" if said else type_name(error)
    place = None if isinstance(error, SyntaxError) else _line_of(error)  # a SyntaxError's text has its line
    return " ".join(text.split()) + (f" ({place})" if place else "")


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a stranger's __str__
        return UNPRINTABLE


def _add_to_path(entry: str) -> None:
    if entry not in sys.path and not (entry == "" and "." in sys.path):
        sys.path.insert(0, entry)


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _place_of(path: Path) -> tuple[Path, str]:
    """The directory from which a file is imported, and its module's name there."""
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    return root, name


def _advised(error: BaseException, path: Path) -> str:
    text = reason(error)
    if not isinstance(error, ImportError) or _NO_PACKAGE not in _said(error):
        return text
    return f"{text}; write {path.parent.name}.{path.stem}:NAME, from the directory above, if it belongs to a package"


def _line_of(error: BaseException) -> str | None:
    """`file, line N`: the last line of the user's own code, else the last of a library's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    frames = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    own = [frame for frame in frames if not frame.filename.startswith(_others_code())]
    if not frames:
        return None
    last = (own or frames)[-1]
    path = Path(last.filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}, line {last.lineno}"


def _others_code() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(paths[kind] + os.sep for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def _public(found: object) -> list[str]:
    """The names that a person may have meant: not private, and no imported module's."""
    named = vars(found) if hasattr(found, "__dict__") else {}
    return [name for name, value in named.items() if not name.startswith("_") and not isinstance(value, ModuleType)]


def modules_here() -> list[str]:
    """The names that modules and packages of the working directory may have."""
    here = [path for path in Path.cwd().iterdir() if not path.name.startswith(".")]
    return [path.stem for path in here if path.suffix == ".py"] + [path.name for path in here if path.is_dir()]


def _nearest(known: list[str], wanted: str) -> str:
    near = nearest(wanted, known)
    return f" (did you mean {near}?)" if near else ""
