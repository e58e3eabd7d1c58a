"""Installs a tiny package that brings policies, as pip would: a module, and a dist-info with its entry points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(directory: Path, name: str, entry_points: Mapping[str, str], modules: Mapping[str, str]) -> None:
    """Put a package of version 1.0 into a directory of the Python path.

    entry_points: of the group `policyserve.policies`. modules: their sources, by name.
    """
    info = directory / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{entry} = {place}\n" for entry, place in entry_points.items()]
    (info / "entry_points.txt").write_text("[policyserve.policies]\n" + "".join(lines))
    for module, source in modules.items():
        (directory / f"{module}.py").write_text(source)
