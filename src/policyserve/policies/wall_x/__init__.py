"""Wall-X models: how they are configured and what they take and give."""

from __future__ import annotations

from policyserve.policies.wall_x.config import MODEL_CONFIGS, ModelConfig
from policyserve.policies.wall_x.loading import STAND_IN, load_policy
from policyserve.policies.wall_x.spec import wall_x_spec

__all__ = ["MODEL_CONFIGS", "STAND_IN", "ModelConfig", "load_policy", "wall_x_spec"]
