"""One cluster for each module that needs one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.cli.serving import Serving
from tests.interop.environments import Environments
from tests.ray.fleet import DIALECTS, Dialects, Fleet, driving
from tests.ray.originals import originals
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


@pytest.fixture(scope="module")
def edges(counting: SmallCluster) -> Iterator[Sequence[Serving]]:
    """Two edges, each in a process of its own."""
    with counting.edge() as first, counting.edge() as second:
        yield first, second


@pytest.fixture
def dialects(request: pytest.FixtureRequest) -> Dialects:
    """Whose clients: this package's, or the original ones with the parameter "originals"."""
    is_original = getattr(request, "param", "") == "originals"
    return request.getfixturevalue("original_clients") if is_original else DIALECTS


@pytest.fixture
def fleet(dialects: Dialects, edges: Sequence[Serving]) -> Iterator[Fleet]:
    """Clients at work."""
    with driving([edge.url for edge in edges], dialects=dialects) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def original_clients(tmp_path_factory: pytest.TempPathFactory) -> Dialects:
    """What opens the original client of each founding dialect."""
    return originals(Environments(tmp_path_factory.mktemp("environments")))
