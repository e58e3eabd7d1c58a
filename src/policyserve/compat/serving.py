"""openpi's and Wall-X's WebsocketPolicyServer: the one server, each pinned to its dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from policyserve.core.errors import PolicyserveError
from policyserve.core.policy import ActionChunk, Policy, PolicyInput, PreparingPolicy, as_policy
from policyserve.engine.answering import batch_buckets
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server


class WebsocketPolicyServer(Server):
    """Serves a BasePolicy, any object with `infer(obs)`, or a Policy of ours.

    metadata: told to clients on connect, over what the policy itself says. Clients of the other dialects are served
    under their paths (`/vibe_rl`).
    """

    dialect: ClassVar[str]

    def __init__(
        self, policy: Any, host: str = "0.0.0.0", port: int = 8000, metadata: Mapping[str, Any] | None = None
    ) -> None:
        batched = getattr(policy, "batched", None)  # WallXPolicy's: many sessions' observations at a time
        served = as_policy(batched if isinstance(batched, Policy) else policy)
        if metadata:
            served = _Described(served, metadata)
        super().__init__(lambda _on_stage: served, ServerConfig(host=host, port=port, dialect=self.dialect))

    def serve_forever(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        self.run_blocking()


class OpenpiPolicyServer(WebsocketPolicyServer):
    """Serves any BasePolicy, openpi's own among them, to openpi's clients."""

    dialect = "openpi"


class WallXPolicyServer(WebsocketPolicyServer):
    """Serves any BasePolicy, WallXPolicy among them, to Wall-X's clients."""

    dialect = "wall_x"


class _Described:
    """A policy, with more metadata."""

    def __init__(self, policy: Policy, metadata: Mapping[str, Any]) -> None:
        self.spec = replace(policy.spec, metadata={**policy.spec.metadata, **metadata})
        self.buckets = batch_buckets(policy)
        self._policy = policy
        if isinstance(policy, PreparingPolicy):
            self.prepare, self.infer_prepared = policy.prepare, policy.infer_prepared

    def infer(self, batch: Sequence[PolicyInput]) -> Sequence[ActionChunk | PolicyserveError]:
        return self._policy.infer(batch)

    def close(self) -> None:
        self._policy.close()
