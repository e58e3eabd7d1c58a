"""Wall-X's serving names; `python -m policyserve.compat.wall_x` is its launch_serving."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from policyserve.compat.policy import BasePolicy

if TYPE_CHECKING:
    from policyserve.compat.serving import WallXPolicyServer as WebsocketPolicyServer
    from policyserve.compat.wall_x.client import WallXClient
    from policyserve.compat.wall_x.launch import launch_serving
    from policyserve.compat.wall_x.policy import WallXPolicy
    from policyserve.policies.wall_x import MODEL_CONFIGS, ModelConfig

# Loaded when they are first used: a robot that asks needs no server.
_HOMES = {
    "MODEL_CONFIGS": "policyserve.policies.wall_x:MODEL_CONFIGS",
    "ModelConfig": "policyserve.policies.wall_x:ModelConfig",
    "WallXClient": "policyserve.compat.wall_x.client:WallXClient",
    "WallXPolicy": "policyserve.compat.wall_x.policy:WallXPolicy",
    "WebsocketPolicyServer": "policyserve.compat.serving:WallXPolicyServer",
    "launch_serving": "policyserve.compat.wall_x.launch:launch_serving",
}

__all__ = [
    "MODEL_CONFIGS",
    "BasePolicy",
    "ModelConfig",
    "WallXClient",
    "WallXPolicy",
    "WebsocketPolicyServer",
    "launch_serving",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)
