"""The pages that every server has: how far its policies are, what they take and give, and the paths of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from policyserve.dialects.rest.recognition import BODY_PATHS
from policyserve.observe.counters import Counters
from policyserve.server.catalogue import Catalogue
from policyserve.server.config import ServerConfig
from policyserve.server.health import add_health, add_readiness
from policyserve.server.openapi_page import add_openapi
from policyserve.server.policies_page import add_policies
from policyserve.server.routes import Routes
from policyserve.server.served import Served
from policyserve.server.spec_page import add_spec
from policyserve.server.vla_eval_pages import add_vla_eval_pages


def make_routes(catalogue: Catalogue[Served], counters: Counters, config: ServerConfig) -> Routes:
    """The routes of these pages. counters: of the whole server."""
    routes = Routes()
    add_health(routes, counters, partial(stage_of, catalogue))
    add_spec(routes, lambda: catalogue.default.metadata)
    add_policies(routes, catalogue)
    for served in () if catalogue.is_plain else catalogue:
        add_readiness(routes, f"/readyz/{served.name}", partial(_stage, served))
        add_spec(routes, partial(_metadata, served), f"/spec/{served.name}")
    for path in catalogue.routes:
        if path.strip("/"):
            add_readiness(routes, f"/readyz/{path.strip('/')}", partial(_stage_at, catalogue, path))
    add_vla_eval_pages(routes, partial(stage_of, catalogue), partial(_batching, catalogue.default, config))
    add_openapi(routes, lambda: catalogue.default.metadata)
    routes.add_post(*BODY_PATHS)
    return routes


def stage_of(policies: Iterable[Served]) -> str:
    """What the first policy that cannot answer is at, behind its name if it has one; empty while all can."""
    stages = ((served, served.stage) for served in policies)
    return next((f"{one.name}: {stage}" if one.is_named else stage for one, stage in stages if stage), "")


def _stage_at(catalogue: Catalogue[Served], path: str) -> str:
    """What the first policy that a path leads to is at, and cannot answer."""
    target = catalogue.resolve(path)
    return next((one.stage for one in target.policies if one.stage), "") if target is not None else ""


def _stage(served: Served) -> str:
    return served.stage


def _metadata(served: Served) -> Mapping[str, Any]:
    return served.metadata


def _batching(served: Served, config: ServerConfig) -> Mapping[str, Any]:
    """In the words of vla-eval: how many requests one call of the policy takes, and how long one waits for others."""
    most = {} if served.spec is None else {"max_batch_size": served.spec.max_batch}
    return most if config.max_wait_s is None else {**most, "max_wait_time": config.max_wait_s}
