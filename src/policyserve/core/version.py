"""The version of this package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("policyserve")
except PackageNotFoundError:  # a source tree on PYTHONPATH
    VERSION = "0+source"
