"""What the interop tests share."""

from __future__ import annotations

import pytest

from tests.interop.environments import Environments


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """The environments of the original clients."""
    return Environments(tmp_path_factory.mktemp("environments"))
