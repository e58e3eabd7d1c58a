"""Both clients behind one face, so that they pass one body of tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from policyserve import AsyncClient, Reply

Make = Callable[..., Any]
DIALECTS = ["vibe_rl", "openpi", "wall_x", "vla_eval", "roboarena"]  # in which clients keep all their promises


class AnyClient(Protocol):
    def infer(self, observation: Mapping[str, Any]) -> Reply: ...
    def connect(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def sessions_opened(self) -> int: ...


class Waiting:
    """An AsyncClient whose calls wait, so that both clients pass one body."""

    def __init__(self, url: str, **options: Any) -> None:
        self._client = AsyncClient(url, **options)
        self._loop = asyncio.new_event_loop()

    def __getstate__(self) -> AsyncClient:
        return self._client

    def __setstate__(self, client: AsyncClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()

    def infer(self, observation: Mapping[str, Any]) -> Reply:
        return self._loop.run_until_complete(self._client.infer(observation))

    def connect(self) -> None:
        self._loop.run_until_complete(self._client.connect())

    def reset(self) -> None:
        self._loop.run_until_complete(self._client.reset())

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._client.close())

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._client.metadata

    @property
    def sessions_opened(self) -> int:
        return self._client.sessions_opened

    def end(self) -> None:
        self.close()
        self._loop.close()
