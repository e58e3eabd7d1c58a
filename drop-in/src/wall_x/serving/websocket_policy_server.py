"""The policy server, and what it serves."""

from policyserve.compat.wall_x import BasePolicy, WebsocketPolicyServer

__all__ = ["BasePolicy", "WebsocketPolicyServer"]
