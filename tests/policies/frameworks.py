"""Optional frameworks in tests: absent ones skip on a developer's machine, and fail where CI is true.

The suites of scripts/check_pythons.py run without any of them, and say so by _POLICYSERVE_TEST_BARE.
"""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from typing import Any

import pytest

needs_uvloop = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")


def import_or_skip(name: str) -> Any:
    """Import a framework, or skip what asks for it; under CI=true its absence is an error, but in a bare install."""
    must_be_there = os.environ.get("CI") == "true" and "_POLICYSERVE_TEST_BARE" not in os.environ
    return importlib.import_module(name) if must_be_there else pytest.importorskip(name)
