"""Trained policies."""

from policyserve.compat.vibe_rl import Policy, create_trained_policy

__all__ = ["Policy", "create_trained_policy"]
