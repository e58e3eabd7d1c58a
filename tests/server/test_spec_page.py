"""/spec tells as JSON what a greeting tells, to who has a key."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from policyserve import ArraySpec, Client, FunctionPolicy, PolicySpec
from policyserve.core.version import VERSION
from policyserve.server.routes import Caller, Routes
from policyserve.server.spec_page import add_spec
from tests.server.live import serving

SPEC = PolicySpec(
    "arm",
    {"x": ArraySpec((2,))},
    ArraySpec((2,)),
    metadata={"robot": "arm", "action_kind": "velocity", "gain": np.float32(2)},
)


def page(metadata: Any, *, has_key: bool = True) -> tuple[int, Any]:
    routes = Routes()
    add_spec(routes, lambda: metadata)
    answer = routes.respond("GET", "/spec", "", Caller(has_key=has_key))
    return answer.status, json.loads(answer.body) if has_key else answer.body


def test_it_is_what_the_greeting_tells() -> None:
    with serving(FunctionPolicy(lambda observation: observation["x"], SPEC)) as live:
        live.ready()
        status, body, headers = live.http("GET", "/spec")
        assert status == 200
        told = json.loads(body)
        with Client(live.url("/openpi")) as client:
            client.infer({"x": np.zeros(2)})
            greeted = client.metadata
    assert told["spec"] == greeted["spec"] == SPEC.describe()
    assert told["policyserve"] == VERSION
    assert {name: told[name] for name in SPEC.metadata} == {"robot": "arm", "action_kind": "velocity", "gain": 2}
    assert headers


def test_it_waits_for_the_policy() -> None:
    assert page({}) == (503, {"status": "loading"})


def test_it_needs_a_key_where_the_server_has_keys() -> None:
    status, _ = page({"robot": "arm"}, has_key=False)
    assert status == 401


def test_whatever_metadata_holds_it_is_json() -> None:
    strange = {
        "nan": float("nan"),
        "small": np.array([1.5, np.inf]),
        "large": np.zeros((50, 50), np.float32),
        "bytes": b"\x00",
        "nested": [{"flag": np.bool_(True)}, (1, None)],
        3: "a number for a key",
    }
    _, told = page(strange)
    assert told["nan"] is None
    assert told["small"] == [1.5, None]
    assert told["large"] == "float32 (50, 50)"
    assert told["nested"] == [{"flag": True}, [1, None]]
    assert told["3"] == "a number for a key"
    assert isinstance(told["bytes"], str)


def test_it_is_made_anew_when_the_metadata_changes() -> None:
    now = {"robot": "arm"}
    routes = Routes()
    add_spec(routes, lambda: now)
    first = routes.respond("GET", "/spec", "", Caller())
    assert routes.respond("GET", "/spec", "", Caller()) is first
    now = {"robot": "leg"}
    assert json.loads(routes.respond("GET", "/spec", "", Caller()).body) == {"robot": "leg"}
