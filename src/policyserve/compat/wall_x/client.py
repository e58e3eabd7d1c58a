"""Wall-X's client, for programs with and without an event loop; needs numpy, msgpack and websockets only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.client.aio import AsyncClient
from policyserve.client.sync import Client
from policyserve.compat.asking import DAY_S, runtime_errors


class WallXClient:
    """Asks a Wall-X server for actions: connect_sync, predict_sync, close_sync, or connect, predict and close.

    The two sets have a connection each. predict connects if nobody has. timeout_s: for each call.
    Actions are handed on as the server sent them, NaN among them too.
    Raises RuntimeError for the server's refusal, ConnectionLost if the connection ends or cannot be made.
    """

    def __init__(
        self, uri: str = "ws://localhost:8000", *, api_key: str | None = None, timeout_s: float = DAY_S
    ) -> None:
        options: dict[str, Any] = {"dialect": "wall_x", "api_key": api_key, "timeout_s": timeout_s, "retry_for_s": 0}
        self._client = Client(uri, **options, check_actions=False)
        self._async_client = AsyncClient(uri, **options, check_actions=False)
        self._metadata: Mapping[str, Any] = {}

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server said when this client connected; empty before."""
        return dict(self._metadata)

    def connect_sync(self) -> None:
        """Connect, and read the server's metadata."""
        with runtime_errors():
            self._client.connect()
        self._metadata = self._client.metadata

    def predict_sync(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Send an observation; returns all that the server answers, `action` and `server_timing` among it."""
        try:
            with runtime_errors():
                return dict(self._client.infer(obs))
        finally:
            self._metadata = self._client.metadata

    def close_sync(self) -> None:
        """Close the connection that connect_sync made."""
        self._client.close()

    async def connect(self) -> None:
        """Connect, and read the server's metadata."""
        with runtime_errors():
            await self._async_client.connect()
        self._metadata = self._async_client.metadata

    async def predict(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Send an observation; returns all that the server answers, `action` and `server_timing` among it."""
        try:
            with runtime_errors():
                return dict(await self._async_client.infer(obs))
        finally:
            self._metadata = self._async_client.metadata

    async def close(self) -> None:
        """Close the connection that connect made."""
        await self._async_client.close()
