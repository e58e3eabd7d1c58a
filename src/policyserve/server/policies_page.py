"""/policies: which policies a server has and how far each is, as JSON, for programs and people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.printable import text_of
from policyserve.core.spec import checkpoint_of
from policyserve.server.catalogue import Catalogue
from policyserve.server.routes import Asked, Response, Route, Routes, json_of
from policyserve.server.served import Served

_MOST_OF_TEXT = 200


def add_policies(routes: Routes, catalogue: Catalogue[Served]) -> None:
    """Add /policies. A caller sees the policies that its key may use, and the routes to none but these."""

    def policies(asked: Asked) -> Response:
        seen = [served for served in catalogue if served.may_use(asked.caller.key)]
        names = {served.name for served in seen}
        return json_of(
            200,
            {
                "policies": [_described(served, served is catalogue.default) for served in seen],
                "routes": [
                    {
                        "path": path,
                        "split": dict(draws.split.shares),
                        "seed": draws.seed,
                        "blind": draws.split.is_blind,
                    }
                    for path, draws in catalogue.routes.items()
                    if names.issuperset(draws.split.shares)
                ],
            },
        )

    routes.add("/policies", Route(policies))


def _described(served: Served, is_default: bool) -> Mapping[str, Any]:
    spec = served.spec
    metadata = spec.metadata if spec is not None else {}
    return {
        "name": served.name,
        "path": f"/{served.name}" if served.is_named else "/",
        "is_default": is_default,
        "is_ready": not served.stage,
        "stage": text_of(served.stage, _MOST_OF_TEXT),
        "failure": text_of(served.failure, _MOST_OF_TEXT) if served.failure is not None else None,
        "calls_itself": text_of(served.own_name, _MOST_OF_TEXT),
        "checkpoint": text_of(checkpoint_of(metadata), _MOST_OF_TEXT),
        "sessions": len(served.sessions),
        "unanswered": served.engine.load,
        "answers": served.counters.requests,
    }
