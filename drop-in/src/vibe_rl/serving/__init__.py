"""The policy server."""

from vibe_rl.serving.websocket_server import PolicyServer

__all__ = ["PolicyServer"]
