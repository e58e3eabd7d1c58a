"""/openapi.json says what the policy takes, in OpenAPI's words."""

from __future__ import annotations

import json

from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.server.openapi_page import add_openapi, described
from policyserve.server.routes import Caller, Routes
from tests.server.live import serving

SPEC = PolicySpec(
    "arm",
    {
        "observation/image": ImageSpec(224, 224, doc="the scene"),
        "observation/state": ArraySpec((None, 7), "float32"),
        "gripper": ArraySpec((), "bool", optional=True),
        "prompt": TextSpec(default="go"),
        "names": TextListSpec(),
    },
    ArraySpec((2,), "int32"),
    horizon=4,
)


def test_a_spec_becomes_a_schema() -> None:
    (post,) = [page["post"] for page in described(SPEC.describe())["paths"].values()]
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["observation/image", "observation/state", "names"]
    found = body["properties"]
    assert found["observation/image"]["contentEncoding"] == "base64"
    assert found["observation/image"]["description"] == "the scene"
    rows = {"type": "array", "items": {"type": "number"}, "minItems": 7, "maxItems": 7}
    assert found["observation/state"] == {"type": "array", "items": rows}
    assert found["gripper"] == {"type": "boolean"}
    assert found["prompt"] == {"type": "string"}
    assert found["names"] == {"type": "array", "items": {"type": "string"}}
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["actions"]
    steps = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    assert answer == {"type": "array", "items": steps, "minItems": 4, "maxItems": 4}


def test_a_policy_without_a_spec_takes_any_keys() -> None:
    (post,) = [page["post"] for page in described({})["paths"].values()]
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert (body["properties"], body["required"], body["additionalProperties"]) == ({}, [], True)


def test_it_is_there_once_the_policy_is() -> None:
    routes = Routes()
    add_openapi(routes, lambda: {})
    assert routes.respond("GET", "/openapi.json", "", Caller()).status == 503
    with serving(FunctionPolicy(lambda _: [[0, 0]] * 4, SPEC)) as live:
        status, body, _ = live.http("GET", "/openapi.json")
    assert status == 200
    assert json.loads(body) == json.loads(json.dumps(described(SPEC.describe())))
