"""Policies of Stable-Baselines3 and sb3-contrib, from their zip files, on NumPy alone."""
