"""Serve robot-learning policies to every client that already exists.

The names below are loaded when they are first used, so that a robot which only wants `Client` imports no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from policyserve.core.version import VERSION

if TYPE_CHECKING:
    from policyserve.client.aio import AsyncClient
    from policyserve.client.sync import Client
    from policyserve.core.errors import PolicyserveError
    from policyserve.core.messages import Observation, Reply
    from policyserve.core.policy import ActionChunk, FunctionPolicy, Policy, PolicyInput, PreparingPolicy, as_policy
    from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
    from policyserve.engine.recipe import Recipe
    from policyserve.policies.stacked import StackedPolicy
    from policyserve.policies.vibe_rl import TrainConfig, create_trained_policy
    from policyserve.server.config import ServerConfig
    from policyserve.server.server import PolicyServer, Server

__version__ = VERSION

_HOMES = {
    "policyserve.client.aio": ("AsyncClient",),
    "policyserve.client.sync": ("Client",),
    "policyserve.core.errors": ("PolicyserveError",),
    "policyserve.core.messages": ("Observation", "Reply"),
    "policyserve.core.policy": (
        "ActionChunk",
        "FunctionPolicy",
        "Policy",
        "PolicyInput",
        "PreparingPolicy",
        "as_policy",
    ),
    "policyserve.core.spec": ("ArraySpec", "ImageSpec", "PolicySpec", "TextListSpec", "TextSpec"),
    "policyserve.engine.recipe": ("Recipe",),
    "policyserve.policies.stacked": ("StackedPolicy",),
    "policyserve.policies.vibe_rl": ("TrainConfig", "create_trained_policy"),
    "policyserve.server.config": ("ServerConfig",),
    "policyserve.server.server": ("PolicyServer", "Server"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ActionChunk",
    "ArraySpec",
    "AsyncClient",
    "Client",
    "FunctionPolicy",
    "ImageSpec",
    "Observation",
    "Policy",
    "PolicyInput",
    "PolicyServer",
    "PolicySpec",
    "PolicyserveError",
    "PreparingPolicy",
    "Recipe",
    "Reply",
    "Server",
    "ServerConfig",
    "StackedPolicy",
    "TextListSpec",
    "TextSpec",
    "TrainConfig",
    "as_policy",
    "create_trained_policy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'policyserve' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
