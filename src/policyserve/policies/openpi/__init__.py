"""Checkpoints of openpi, by its own package in the environment that policyserve runs in."""
