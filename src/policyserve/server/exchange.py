"""The policies that a server can exchange: what loads one becomes an engine, made as the server makes its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from policyserve.core.errors import ConfigError
from policyserve.core.recipe import Recipe
from policyserve.engine.answering import LoadPolicy
from policyserve.engine.engine import Engine, KeptEngine
from policyserve.engine.ready import ReadyPolicy
from policyserve.engine.swapping import SwappingEngine
from policyserve.engine.swaps import NextPolicy

MakeNext: TypeAlias = Callable[[LoadPolicy, str], NextPolicy]


@dataclass(frozen=True)
class FoundPolicy:
    """A policy that somebody named. load: what loads it. title: for people."""

    load: LoadPolicy
    title: str


# What `policyserve serve` takes, and its flags, to what they stand for; raises ConfigError. It may read files.
FindPolicy: TypeAlias = Callable[[str, Sequence[str]], FoundPolicy]


def make_next(make: Callable[[LoadPolicy], Engine]) -> MakeNext:
    """What makes a policy that can take over; make: its engine. Raises what `make` raises where settings do not fit."""

    def made(load: LoadPolicy, title: str) -> NextPolicy:
        return NextPolicy(title, lambda: make(load), not isinstance(load, ReadyPolicy))

    return made


def swapping(engine: Engine, name: str) -> SwappingEngine:
    """The engine, if its policy can be exchanged; else raises ConfigError."""
    if isinstance(engine, KeptEngine):
        raise ConfigError(f"{name} is not exchanged here: {engine.how_to_exchange('', (), sessions_stay=False)}")
    if not isinstance(engine, SwappingEngine):
        told = f"its requests go to a {type(engine).__name__}, which takes no other policy"
        raise ConfigError(f"{name} cannot be exchanged: {told} (an engine of your own)")
    return engine


def title_of(load: LoadPolicy) -> str:
    """What to call a policy before it is loaded, where nobody says it."""
    if isinstance(load, ReadyPolicy):
        return load.policy.spec.name
    return load.target if isinstance(load, Recipe) else getattr(load, "__name__", type(load).__name__)
