"""A server of a policy that is there already, as programs and notebooks have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.core.policy import as_policy
from policyserve.core.recipe import Recipe
from policyserve.engine.ready import PolicyPerSession, ReadyPolicy
from policyserve.engine.swaps import Swapped
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server


class PolicyServer(Server):
    """Serve a policy that is there already: a Policy, an object with `infer(obs)`, or a function of one observation.

    host, port: instead of the config's, which are 0.0.0.0 and 8000 by default.
    factory: in place of a policy, a function that makes one for each session, which then has a memory of its own.
    Raises ConfigError for what cannot be served.
    """

    def __init__(
        self,
        policy: Any = None,
        host: str | None = None,
        port: int | None = None,
        *,
        config: ServerConfig | None = None,
        factory: Callable[[], Any] | None = None,
    ) -> None:
        if (policy is None) == (factory is None):
            raise ConfigError("policy, factory: expected one of the two")
        load = ReadyPolicy(as_policy(policy)) if factory is None else PolicyPerSession(factory)
        given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        super().__init__(load, replace(config or ServerConfig(), **given))

    async def swap(self, policy: Any, name: str | None = None, **how: Any) -> Swapped:
        """As Server.swap(); policy: also what the constructor takes, an object or a function."""
        is_loader = isinstance(policy, (Recipe, ReadyPolicy, PolicyPerSession))
        return await super().swap(policy if is_loader else ReadyPolicy(as_policy(policy)), name, **how)

    @property
    def _request_count(self) -> int:
        """Requests answered since the start; the founding document's name."""
        return self.counters.requests

    @property
    def _total_latency_ms(self) -> float:
        """Their latencies' sum; the founding document's name."""
        return self.counters.total_latency_ms
