"""The policy server."""

from policyserve.compat.vibe_rl import PolicyServer

__all__ = ["PolicyServer"]
