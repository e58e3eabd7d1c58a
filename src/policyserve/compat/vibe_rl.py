"""vibe_rl's serving names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from policyserve.core.policy import Policy
from policyserve.policies.vibe_rl import (
    PRESETS,
    DQNConfig,
    PPOConfig,
    Preset,
    RunnerConfig,
    SACConfig,
    TrainConfig,
    create_trained_policy,
)
from policyserve.server import policy_server
from policyserve.server.config import ServerConfig

__all__ = [
    "PRESETS",
    "DQNConfig",
    "PPOConfig",
    "Policy",
    "PolicyServer",
    "Preset",
    "RunnerConfig",
    "SACConfig",
    "TrainConfig",
    "create_trained_policy",
]


class PolicyServer(policy_server.PolicyServer):
    """`policyserve.PolicyServer`, pinned to vibe_rl; clients of the other dialects are served under their paths."""

    def __init__(
        self, policy: Any, host: str | None = None, port: int | None = None, *, config: ServerConfig | None = None
    ) -> None:
        super().__init__(policy, host, port, config=replace(config or ServerConfig(), dialect="vibe_rl"))
