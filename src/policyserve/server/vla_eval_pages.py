"""The pages that vla-eval's tools ask of a model server: whether it answers, and how it gathers batches. Pure.

The original's /config changes what a query names. A page that is asked for by GET must change nothing: a robot would
find itself served otherwise because somebody followed a link.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from policyserve.server.routes import Asked, Response, Route, Routes


def add_vla_eval_pages(routes: Routes, stage: Callable[[], str], batching: Callable[[], Mapping[str, Any]]) -> None:
    """Add /health and /config. stage: what loading is at; empty once every policy is ready.

    batching: `max_batch_size`, and `max_wait_time` in seconds, as far as they are set.
    """

    def health(asked: Asked) -> Response:
        return _told(503, {"status": "loading"}) if stage() else _told(200, {"status": "ok"})

    def config(asked: Asked) -> Response:
        if asked.query:
            told = "is not set by GET: serve with --max-wait-ms, and batches of a policy are its spec's max_batch"
            return _told(422, {"errors": [f"{name[:40]} {told}" for name in asked.query]})
        return _told(200, {"applied": {}, "config": batching()})

    routes.add("/health", Route(health, needs_key=False, is_listed=False))
    routes.add("/config", Route(config, is_listed=False))


def _told(status: int, fields: Mapping[str, Any]) -> Response:
    """As the original writes it, with spaces."""
    return Response(status, json.dumps(fields).encode() + b"\n")
