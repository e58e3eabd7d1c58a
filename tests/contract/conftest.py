"""What the contract tests of the clients share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from policyserve import Client
from tests.contract.clients import AnyClient, Make, Waiting


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a client of this kind: make(url, **options)."""
    made: list[Any] = []

    def of_kind(url: str, **options: Any) -> AnyClient:
        client: Any = Client(url, **options) if request.param == "sync" else Waiting(url, **options)
        made.append(client)
        return client

    yield of_kind
    for client in made:
        client.end() if isinstance(client, Waiting) else client.close()
