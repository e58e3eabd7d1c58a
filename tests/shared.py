"""Files that other people's programs made, in the `shared` folder beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_path(*parts: str) -> Path:
    """A path under `shared`. Where it is absent the test is skipped, but under CI=true it fails."""
    path = _SHARED.joinpath(*parts)
    if not path.exists():
        message = f"shared/{'/'.join(parts)} is not beside the repository"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
