"""Which files of people's own code this process has loaded, as against installed packages and Python's library."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

_INSTALLED = ("site-packages", "dist-packages")
_OURS = str(Path(__file__).parents[2]) + os.sep


def own_sources() -> list[str]:
    """The absolute paths of the .py files of all modules that are nobody's package, sorted."""
    paths = sysconfig.get_paths()
    library = tuple(paths[kind] + os.sep for kind in ("stdlib", "platstdlib"))
    files = {file for module in list(sys.modules.values()) if (file := _file_of(module))}
    return sorted(file for file in files if not _is_installed(file) and not file.startswith((*library, _OURS)))


def _file_of(module: object) -> str | None:
    # By its dictionary: asking a module that loads itself lazily for an attribute would load it.
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    return file if isinstance(file, str) and file.endswith(".py") and os.path.isabs(file) else None


def _is_installed(file: str) -> bool:
    return any(f"{os.sep}{name}{os.sep}" in file for name in _INSTALLED)
