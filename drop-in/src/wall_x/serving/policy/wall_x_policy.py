"""Wall-X's policy."""

from policyserve.compat.wall_x import BasePolicy, WallXPolicy

__all__ = ["BasePolicy", "WallXPolicy"]
