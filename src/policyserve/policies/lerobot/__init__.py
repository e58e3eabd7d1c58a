"""Policies that LeRobot trained: ACT and Diffusion by networks of our own, other types through the lerobot package."""
