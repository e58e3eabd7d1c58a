"""The robot's half: clients that need numpy, msgpack and websockets only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policyserve.client.aio import AsyncClient
    from policyserve.client.sync import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """Load a client when it is first named: one without an event loop needs no asyncio."""
    if name == "Client":
        from policyserve.client.sync import Client

        return Client
    if name == "AsyncClient":
        from policyserve.client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module 'policyserve.client' has no attribute {name!r}")
