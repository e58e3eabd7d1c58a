"""What a server is given to serve: one policy, or several by name, each with settings of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.core.observer import Observers
from policyserve.engine.answering import LoadPolicy
from policyserve.engine.batcher import Batcher
from policyserve.engine.engine import Engine
from policyserve.engine.local import LocalEngine
from policyserve.engine.swapping import SwappingEngine
from policyserve.observe.counters import Counters
from policyserve.server.catalogue import Catalogue, check_name
from policyserve.server.config import ServerConfig
from policyserve.server.exchange import make_next
from policyserve.server.served import Served
from policyserve.server.splits import Split

# What one of several policies may have otherwise than the server. All else is the port's, or the process's.
OWN_SETTINGS = (
    *("isolate", "replicas", "devices", "max_wait_ms", "max_queue", "max_queue_ms", "request_timeout_s"),
    *("dialect", "hello_grace_ms", "serve_steps", "chunk_size", "max_pending", "map"),
)


@dataclass(frozen=True)
class Offer:
    """One of several policies. policy: what loads it, or an Engine. settings: of ServerConfig, instead of the server's.

    keys: the names of the API keys that may use it; None: all. max_sessions: the most at a time; None: the server's.
    title: what people call it, until another one takes its place; empty: what it calls itself.
    """

    policy: LoadPolicy | Engine
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    keys: Collection[str] | None = None
    max_sessions: int | None = None
    title: str = ""


def make_catalogue(
    policy: LoadPolicy | Engine | Mapping[str, LoadPolicy | Engine | Offer],
    config: ServerConfig,
    observers: Observers,
    counters: Counters,
    routes: Mapping[str, Split],
) -> Catalogue[Served]:
    """The policies of a server, none of them started; counters: the server's, which count for its only policy as well.

    Raises ConfigError.
    """
    if not isinstance(policy, Mapping):
        return Catalogue([_served(None, Offer(policy), config, observers, counters)], routes)
    offers = cast(Mapping[str, LoadPolicy | Engine | Offer], policy)
    counted = counters if len(offers) == 1 else None
    made = [
        _served(name, offer if isinstance(offer, Offer) else Offer(offer), config, observers, counted)
        for name, offer in offers.items()
    ]
    return Catalogue(made, routes)


def check_keys(catalogue: Catalogue[Served], known: Collection[str]) -> None:
    """Raise ConfigError if a policy is for keys that there are not. known: the names of the server's API keys."""
    for served in catalogue:
        strange = sorted(set(served.keys or ()) - set(known))
        if strange:
            there = ", ".join(sorted(known)) or "none, since --api-key-file names no file"
            told = f"policies.{served.name}.keys: no API key is named {strange[0]!r}"
            raise ConfigError(f"{told}; there are {there}")


def _served(
    name: str | None, offer: Offer, config: ServerConfig, observers: Observers, counters: Counters | None
) -> Served:
    if name is not None:
        check_name(name)
    own = _own_config(name, offer, config)
    called = "the policy" if name is None else f"policy {name}"
    next_policy = make_next(lambda load: local_engine(load, own, called))
    engine = offer.policy
    if not isinstance(engine, Engine):
        engine = SwappingEngine(next_policy(engine, offer.title), own.request_timeout_s, own.max_queue)
    part = observers.below()
    served = Served(name, engine, part, own, keys=offer.keys, max_sessions=offer.max_sessions)
    served.next_policy = next_policy
    if counters is None:
        part.add(served.counters, is_trusted=True)
    else:
        served.counters = counters
    return served


def _own_config(name: str | None, offer: Offer, config: ServerConfig) -> ServerConfig:
    for setting in offer.settings:
        if setting not in OWN_SETTINGS:
            near = nearest(setting, OWN_SETTINGS)
            meant = f" (did you mean {near}?)" if near else ""
            known = ", ".join(OWN_SETTINGS)
            raise ConfigError(f"policies.{name}.{setting}: no setting of one policy{meant}; those are {known}")
    if offer.max_sessions is not None and offer.max_sessions < 1:
        raise ConfigError(f"policies.{name}.max_sessions: expected 1 or more, got {offer.max_sessions}")
    try:
        return replace(config, **offer.settings) if offer.settings else config
    except ConfigError as error:
        raise ConfigError(f"policies.{name}: {error}") from error


def local_engine(load: LoadPolicy, config: ServerConfig, name: str = "the policy") -> LocalEngine:
    """The engine that a server makes for what loads its policy; raises ConfigError for what does not go together.

    name: what the log calls it.
    """

    def make_batcher(max_batch: int) -> Batcher:
        return Batcher(max_batch, config.max_queue, config.max_wait_s, config.max_queue_s)

    is_isolated, devices = config.isolate == "process", config.device_names
    timeout_s, count = config.request_timeout_s, config.replicas
    return LocalEngine(load, make_batcher, timeout_s, is_isolated=is_isolated, count=count, devices=devices, name=name)
