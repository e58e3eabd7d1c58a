"""What vla-eval's tools ask over HTTP: /health, and /config, which changes nothing here."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, FunctionPolicy, PolicySpec
from policyserve.server.routes import Caller, Response, Routes
from policyserve.server.vla_eval_pages import add_vla_eval_pages
from tests.server.live import DEADLINE_S, serving

SPEC = PolicySpec("arm", {"state": ArraySpec((2,))}, ArraySpec((2,)), max_batch=4)


def get(path: str, query: str = "", *, stage: str = "", has_key: bool = True) -> Response:
    routes = Routes()
    add_vla_eval_pages(routes, lambda: stage, lambda: {"max_batch_size": 8, "max_wait_time": 0.01})
    return routes.respond("GET", path, query, Caller(has_key=has_key))


def test_health_says_whether_the_policy_answers_as_the_original_writes_it() -> None:
    ready = get("/health", has_key=False)
    assert (ready.status, ready.body, ready.content_type) == (200, b'{"status": "ok"}\n', "application/json")
    assert get("/health", stage="loading /secret").status == 503
    assert b"secret" not in get("/health", stage="loading /secret").body


def test_config_tells_what_is_set_to_who_has_a_key() -> None:
    told = get("/config")
    assert (told.status, json.loads(told.body)) == (
        200,
        {"applied": {}, "config": {"max_batch_size": 8, "max_wait_time": 0.01}},
    )
    assert get("/config", has_key=False).status == 401


@pytest.mark.parametrize("query", ["max_batch_size=8", "max_wait_time=1&other=2", "max_batch_size=-1", "x" * 99 + "=1"])
def test_config_sets_nothing(query: str) -> None:
    told = get("/config", query)
    assert told.status == 422
    errors: Any = json.loads(told.body)["errors"]
    assert len(errors) == query.count("=")
    assert all("is not set by GET: serve with --max-wait-ms" in error and len(error) < 150 for error in errors)


def test_a_server_answers_both_and_is_not_healthy_before_its_policy_is_there() -> None:
    go = threading.Event()

    def load(_: Any) -> Any:
        assert go.wait(DEADLINE_S)
        return FunctionPolicy(lambda observation: observation["state"], SPEC)

    with serving(load=load, max_wait_ms=5.0) as live:
        assert live.http("GET", "/health")[0] == 503
        assert json.loads(live.http("GET", "/config")[1]) == {"applied": {}, "config": {"max_wait_time": 0.005}}
        go.set()
        live.ready()
        assert live.http("GET", "/health")[:2] == (200, b'{"status": "ok"}\n')
        status, body, _ = live.http("GET", "/config")
        assert (status, json.loads(body)["config"]) == (200, {"max_batch_size": 4, "max_wait_time": 0.005})
        assert live.http("GET", "/config?max_batch_size=8")[0] == 422
        assert np.float32(4) == json.loads(live.http("GET", "/config")[1])["config"]["max_batch_size"]
