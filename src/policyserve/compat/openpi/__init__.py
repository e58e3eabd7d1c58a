"""openpi's names: the server's, and those of its client package."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from policyserve.compat.policy import BasePolicy

if TYPE_CHECKING:
    from policyserve.compat.openpi import image_tools
    from policyserve.compat.openpi.client import ActionChunkBroker, WebsocketClientPolicy
    from policyserve.compat.openpi.realtime import RealtimeActionChunkBroker
    from policyserve.compat.serving import OpenpiPolicyServer as WebsocketPolicyServer

__all__ = [
    "ActionChunkBroker",
    "BasePolicy",
    "RealtimeActionChunkBroker",
    "WebsocketClientPolicy",
    "WebsocketPolicyServer",
    "image_tools",
]

# Loaded when they are first used: a robot that asks needs no server.
_HOMES = {
    "ActionChunkBroker": "policyserve.compat.openpi.client:ActionChunkBroker",
    "RealtimeActionChunkBroker": "policyserve.compat.openpi.realtime:RealtimeActionChunkBroker",
    "WebsocketClientPolicy": "policyserve.compat.openpi.client:WebsocketClientPolicy",
    "WebsocketPolicyServer": "policyserve.compat.serving:OpenpiPolicyServer",
}


def __getattr__(name: str) -> Any:
    if name == "image_tools":
        return import_module(f"{__name__}.image_tools")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)
