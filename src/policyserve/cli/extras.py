"""Which of policyserve's optional packages are installed, by what its own metadata says; none is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w, -]*)\])?.*\bextra == ['\"]([\w-]+)['\"]")
_FOR_DEVELOPERS = ("dev", "lint", "test")


@dataclass(frozen=True)
class Extra:
    """One extra. packages: what it brings; missing: those of them that are not installed."""

    name: str
    packages: tuple[str, ...]
    missing: tuple[str, ...]


def version_of(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras() -> list[Extra]:
    """Every extra that users choose from; empty where policyserve itself is not installed as a package."""
    packages = _packages()
    return [
        Extra(name, found, tuple(package for package in found if version_of(package) is None))
        for name, found in packages.items()
        if name not in _FOR_DEVELOPERS
    ]


def _packages() -> Mapping[str, tuple[str, ...]]:
    """The packages of each extra, those of extras in it too."""
    try:
        required = metadata.requires("policyserve") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[tuple[str, str]]] = {}
    for line in required:
        parts = _REQUIREMENT.match(line)
        if parts is not None:
            found.setdefault(parts[3], []).append((parts[1], parts[2] or ""))

    def flat(name: str) -> list[str]:
        named: list[str] = []
        for package, inner in found.get(name, []):
            others = [one.strip() for one in inner.split(",")]
            named += [one for other in others for one in flat(other)] if package == "policyserve" else [package]
        return named

    return {name: tuple(dict.fromkeys(flat(name))) for name in found}
