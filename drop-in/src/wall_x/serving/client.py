"""The client."""

from policyserve.compat.wall_x import WallXClient

__all__ = ["WallXClient"]
