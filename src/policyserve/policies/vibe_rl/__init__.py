"""Policies trained with vibe_rl: its presets, its checkpoints, and models of one's own in Equinox.

Nothing here imports JAX, Equinox or tensorstore before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policyserve.policies.vibe_rl.checkpoint import find_checkpoint
from policyserve.policies.vibe_rl.config import (
    AlgoConfig,
    DQNConfig,
    PPOConfig,
    RunnerConfig,
    SACConfig,
    TrainConfig,
    load_train_config,
    read_train_config,
)
from policyserve.policies.vibe_rl.demo import DEMOS, demo_config, demo_directory, load_demo
from policyserve.policies.vibe_rl.environments import ENVIRONMENTS, Environment, find_environment
from policyserve.policies.vibe_rl.equinox_policy import equinox_policy, load_equinox
from policyserve.policies.vibe_rl.policy import create_trained_policy
from policyserve.policies.vibe_rl.presets import PRESETS, Preset, find_preset
from policyserve.policies.vibe_rl.run_config import starting_config

if TYPE_CHECKING:
    from policyserve.policies.vibe_rl.encoders import CNNEncoder as CNNEncoder
    from policyserve.policies.vibe_rl.encoders import MLPEncoder as MLPEncoder
    from policyserve.policies.vibe_rl.encoders import ViTEncoder as ViTEncoder

# Without the encoders: `import *` must not import JAX.
__all__ = [
    "DEMOS",
    "ENVIRONMENTS",
    "PRESETS",
    "AlgoConfig",
    "DQNConfig",
    "Environment",
    "PPOConfig",
    "Preset",
    "RunnerConfig",
    "SACConfig",
    "TrainConfig",
    "create_trained_policy",
    "demo_config",
    "demo_directory",
    "equinox_policy",
    "find_checkpoint",
    "find_environment",
    "find_preset",
    "load_demo",
    "load_equinox",
    "load_train_config",
    "read_train_config",
    "starting_config",
]


def __getattr__(name: str) -> Any:
    if name in ("CNNEncoder", "MLPEncoder", "ViTEncoder"):  # they are Equinox classes: importing them imports JAX
        from policyserve.policies.vibe_rl import encoders

        return getattr(encoders, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
