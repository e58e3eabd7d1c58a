"""drop-in/ takes the place of packages of other people: it must not stand beside them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_ORIGINALS = ("vibe-rl", "wall-x")


def refuse_beside_originals() -> None:
    """Raise ImportError if a distribution is installed whose import paths the drop-in provides."""
    for name in _ORIGINALS:
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        raise ImportError(
            f"policyserve-drop-in stands in for {' and '.join(_ORIGINALS)}, and {name} {installed} is installed: "
            f"uninstall policyserve-drop-in and reinstall {name}, or uninstall {name}"
        )
