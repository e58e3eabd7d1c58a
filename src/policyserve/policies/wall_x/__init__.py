"""Wall-X models: how they are configured, what they take and give, and how they are loaded."""

from __future__ import annotations

from policyserve.policies.wall_x.config import MODEL_CONFIGS, ModelConfig
from policyserve.policies.wall_x.conventions import CONVENTIONS, Conventions, conventions_named
from policyserve.policies.wall_x.loading import STAND_IN, check_model, load_policy
from policyserve.policies.wall_x.options import OptionFlags, Options
from policyserve.policies.wall_x.runtime import check_runtime
from policyserve.policies.wall_x.spec import wall_x_spec

__all__ = [
    "CONVENTIONS",
    "MODEL_CONFIGS",
    "STAND_IN",
    "Conventions",
    "ModelConfig",
    "OptionFlags",
    "Options",
    "check_model",
    "check_runtime",
    "conventions_named",
    "load_policy",
    "wall_x_spec",
]
