"""The pages that load balancers ask for, which need no key: whether the server lives, and whether its policies do."""

from __future__ import annotations

from collections.abc import Callable

from policyserve.observe.counters import Counters
from policyserve.server.routes import Asked, Response, Route, Routes, json_of


def add_health(routes: Routes, counters: Counters, stage: Callable[[], str]) -> None:
    """Add /healthz and /readyz. stage: what loading is at; empty once every policy is ready."""

    def healthz(asked: Asked) -> Response:
        """The founding JSON: alive from the first moment, whatever the policy does."""
        mean_ms = round(counters.mean_latency_ms, 2)
        return json_of(200, {"status": "ok", "requests": counters.requests, "avg_latency_ms": mean_ms})

    routes.add("/healthz", Route(healthz, needs_key=False))
    add_readiness(routes, "/readyz", stage)


def add_readiness(routes: Routes, path: str, stage: Callable[[], str]) -> None:
    """Add a page that says whether something answers. stage: what loading is at; empty once it does."""

    def readyz(asked: Asked) -> Response:
        if now := stage():
            told = {"stage": now} if asked.caller.has_key else {}  # an error in it may name files
            return json_of(503, {"status": "loading", **told})
        return json_of(200, {"status": "ready"})

    routes.add(path, Route(readyz, needs_key=False, is_listed=path == "/readyz"))
