"""`python -m policyserve.compat.wall_x`."""

from __future__ import annotations

from policyserve.compat.wall_x.launch import launch_serving

if __name__ == "__main__":
    launch_serving()
