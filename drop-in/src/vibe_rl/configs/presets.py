"""The named training runs."""

from policyserve.compat.vibe_rl import PRESETS, DQNConfig, PPOConfig, RunnerConfig, SACConfig, TrainConfig

__all__ = ["PRESETS", "DQNConfig", "PPOConfig", "RunnerConfig", "SACConfig", "TrainConfig"]
