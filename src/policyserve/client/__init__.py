"""The robot's half: clients that need numpy, msgpack and websockets only."""

from policyserve.client.aio import AsyncClient
from policyserve.client.sync import Client

__all__ = ["AsyncClient", "Client"]
