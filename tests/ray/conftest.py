"""One cluster for each module that needs one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ray.small_cluster import SmallCluster, small_cluster, surroundings


@pytest.fixture(scope="session")
def token() -> Iterator[None]:
    """For whatever imports ray."""
    with surroundings():
        yield


@pytest.fixture(scope="module")
def counting(token: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCluster]:
    """Two replicas of the counting policy on two nodes."""
    with small_cluster(tmp_path_factory.mktemp("pids")) as made:
        made.deploy(made.recipe(1))
        yield made
