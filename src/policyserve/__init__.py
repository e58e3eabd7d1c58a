"""Serve robot-learning policies to every client that already exists.

`__all__` below is the whole public interface, grouped by where it lives; what is not in it may change. Its names are
loaded when they are first used, so that a robot which only wants `Client` imports no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policyserve.background import RunningServer, start
    from policyserve.client.aio import AsyncClient
    from policyserve.client.sync import Client
    from policyserve.core.errors import (
        BadAction,
        BadObservation,
        ClientInUse,
        ConfigError,
        ConnectionLost,
        DeadlineExceeded,
        MissingDependency,
        NotReady,
        Overloaded,
        PolicyChanged,
        PolicyFailed,
        PolicyLost,
        PolicyserveError,
        Refusal,
        RemoteError,
        Unavailable,
        WireError,
        WrongDialect,
    )
    from policyserve.core.messages import Observation, Reply
    from policyserve.core.observer import Observer, SessionFacts
    from policyserve.core.policy import (
        ActionChunk,
        FunctionPolicy,
        PerSessionPolicy,
        Policy,
        PolicyInput,
        PreparingPolicy,
        ResettablePolicy,
        SettlingPolicy,
        as_policy,
    )
    from policyserve.core.recipe import Recipe
    from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
    from policyserve.engine.answering import LoadPolicy, OnStage
    from policyserve.engine.engine import Engine
    from policyserve.policies.loading import load_policy
    from policyserve.policies.registry import Adapter, Source
    from policyserve.policies.stacked import StackedPolicy
    from policyserve.policies.vibe_rl import TrainConfig, create_trained_policy
    from policyserve.realtime.aio import AsyncRealtimeClient
    from policyserve.realtime.combining import ensemble
    from policyserve.realtime.machine import Realtime
    from policyserve.realtime.settings import RealtimeSettings
    from policyserve.realtime.sync import RealtimeClient, RealtimeExecution
    from policyserve.realtime.values import Action, MergedChunk, RealtimeStatus
    from policyserve.server.config import ServerConfig
    from policyserve.server.policy_server import PolicyServer
    from policyserve.server.server import Server

    __version__: str

__all__: list[str] = []
_HOME_OF: dict[str, str] = {}


def _are_in(module: str) -> None:
    """Note that the names which `__all__` has got since the last call are in this module."""
    _HOME_OF.update((name, module) for name in __all__ if name not in _HOME_OF)


# A robot's half.
__all__ += ["Client"]
_are_in("policyserve.client.sync")
__all__ += ["AsyncClient"]
_are_in("policyserve.client.aio")
__all__ += ["Observation", "Reply"]
_are_in("policyserve.core.messages")

# A robot's half in real time.
__all__ += ["RealtimeClient", "RealtimeExecution"]
_are_in("policyserve.realtime.sync")
__all__ += ["AsyncRealtimeClient"]
_are_in("policyserve.realtime.aio")
__all__ += ["Action", "MergedChunk", "RealtimeStatus"]
_are_in("policyserve.realtime.values")
__all__ += ["Realtime"]
_are_in("policyserve.realtime.machine")
__all__ += ["RealtimeSettings"]
_are_in("policyserve.realtime.settings")
__all__ += ["ensemble"]
_are_in("policyserve.realtime.combining")

# What a program may catch; the module has the tree.
__all__ += ["PolicyserveError"]
__all__ += ["BadObservation", "Refusal", "WireError", "WrongDialect"]
__all__ += ["DeadlineExceeded", "NotReady", "Overloaded", "PolicyChanged", "PolicyLost", "Unavailable"]
__all__ += ["BadAction", "PolicyFailed"]
__all__ += ["ClientInUse", "ConnectionLost", "RemoteError"]
__all__ += ["ConfigError", "MissingDependency"]
_are_in("policyserve.core.errors")

# What a policy is, and what it says of its observations and actions.
__all__ += ["ActionChunk", "Policy", "PolicyInput", "PreparingPolicy", "ResettablePolicy", "SettlingPolicy"]
__all__ += ["FunctionPolicy", "PerSessionPolicy", "as_policy"]
_are_in("policyserve.core.policy")
__all__ += ["StackedPolicy"]
_are_in("policyserve.policies.stacked")
__all__ += ["ArraySpec", "ImageSpec", "PolicySpec", "TextListSpec", "TextSpec"]
_are_in("policyserve.core.spec")
__all__ += ["TrainConfig", "create_trained_policy"]
_are_in("policyserve.policies.vibe_rl")
__all__ += ["load_policy"]
_are_in("policyserve.policies.loading")

# A server in a thread of this program.
__all__ += ["RunningServer", "start"]
_are_in("policyserve.background")

# A server, and what it takes.
__all__ += ["PolicyServer"]
_are_in("policyserve.server.policy_server")
__all__ += ["Server"]
_are_in("policyserve.server.server")
__all__ += ["ServerConfig"]
_are_in("policyserve.server.config")
__all__ += ["LoadPolicy", "OnStage"]
_are_in("policyserve.engine.answering")
__all__ += ["Recipe"]
_are_in("policyserve.core.recipe")
__all__ += ["Engine"]
_are_in("policyserve.engine.engine")
__all__ += ["Observer", "SessionFacts"]
_are_in("policyserve.core.observer")

# What a package brings that adds policies to the commands.
__all__ += ["Adapter", "Source"]
_are_in("policyserve.policies.registry")


if not TYPE_CHECKING:  # to type checkers every name would be there, the misspelt ones too

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return import_module("policyserve.core.version").VERSION
        if name not in _HOME_OF:
            raise AttributeError(f"module 'policyserve' has no attribute {name!r}")
        return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
