"""What plain HTTP requests on the server's port get: a pure table of routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policyserve.core.printable import one_line
from policyserve.observe.counters import Counters


@dataclass(frozen=True, slots=True)
class Health:
    """What the routes tell of the server. stage: what loading is at; empty once the policy is ready."""

    counters: Counters
    stage: str
    is_told: bool = True  # the caller has a key, or none is needed


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def is_route(path: str) -> bool:
    """Whether `path` is answered over HTTP even to a WebSocket handshake."""
    return path in _ROUTES


def respond(method: str, path: str, health: Health) -> Response:
    """Answer a request that is no WebSocket handshake.

    Every route answers everybody, so that load balancers need no key: what tells more than whether the server lives,
    is ready and how busy it is has to look at `health.is_told`.
    """
    route = _ROUTES.get(path)
    if route is None:
        return text(404, f"no page at this path; robots connect here by WebSocket, pages are {', '.join(_ROUTES)}")
    if method != "GET":
        return text(405, f"{path} answers GET", (("Allow", "GET"),))
    return route(health)


def text(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A one-line answer for people."""
    return Response(status, f"{one_line(message)}\n".encode(), "text/plain; charset=utf-8", headers)


def _healthz(health: Health) -> Response:
    """The founding JSON: alive from the first moment, whatever the policy does."""
    counters = health.counters
    mean_ms = round(counters.mean_latency_ms, 2)
    return _json(200, {"status": "ok", "requests": counters.requests, "avg_latency_ms": mean_ms})


def _readyz(health: Health) -> Response:
    if health.stage:
        stage = {"stage": health.stage} if health.is_told else {}  # an error in it may name files
        return _json(503, {"status": "loading", **stage})
    return _json(200, {"status": "ready"})


def _json(status: int, fields: Mapping[str, Any]) -> Response:
    return Response(status, json.dumps(fields, separators=(",", ":")).encode() + b"\n")


_ROUTES: Mapping[str, Callable[[Health], Response]] = {"/healthz": _healthz, "/readyz": _readyz}
