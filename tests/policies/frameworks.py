"""Optional frameworks in tests: absent ones skip on a developer's machine, and fail where CI is true."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def import_or_skip(name: str) -> Any:
    """Import a framework, or skip what asks for it; under CI=true its absence is an error."""
    return importlib.import_module(name) if os.environ.get("CI") == "true" else pytest.importorskip(name)
