"""/openapi.json: what `POST /act` takes and gives as plain JSON, for programs that make clients of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyserve.core.version import VERSION
from policyserve.server.routes import Asked, Response, Route, Routes, json_of

_NUMBERS = {"type": "array", "items": {}}
_PICTURE = {"type": "string", "contentEncoding": "base64", "description": "a JPEG or a PNG"}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                **{key: {"type": "string"} for key in ("code", "message", "path", "expected", "got", "cure")},
                "retryable": {"type": "boolean"},
            },
            "required": ["code", "message", "retryable"],
        }
    },
}


def add_openapi(routes: Routes, metadata: Callable[[], Mapping[str, Any]]) -> None:
    """Add /openapi.json. metadata: that of greetings; empty until the policy is ready."""

    def page(asked: Asked) -> Response:
        told = metadata()
        return json_of(200, described(told.get("spec") or {})) if told else json_of(503, {"status": "loading"})

    routes.add("/openapi.json", Route(page, is_listed=False))


def described(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The document, of what PolicySpec.describe() gives; of a policy without a spec any keys pass."""
    leaves: Mapping[str, Mapping[str, Any]] = spec.get("observation") or {}
    body = {
        "type": "object",
        "properties": {path: _schema(leaf) for path, leaf in leaves.items()},
        "required": [path for path, leaf in leaves.items() if not leaf.get("optional") and leaf.get("default") is None],
        "additionalProperties": True,
    }
    answer = {"type": "object", "properties": {"actions": _actions(spec)}, "required": ["actions"]}
    post = {
        "operationId": "act",
        "summary": "Ask for actions",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "actions", "content": {"application/json": {"schema": answer}}},
            "default": {"description": "a refusal", "content": {"application/json": {"schema": _ERROR}}},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "policyserve", "version": VERSION},
        "paths": {"/act": {"post": post}},
    }


def _schema(leaf: Mapping[str, Any]) -> dict[str, Any]:
    """What stands at a key: a leaf's description, as JSON Schema."""
    doc = {"description": leaf["doc"]} if leaf.get("doc") else {}
    kind = leaf.get("kind")
    if kind == "image":
        return {**_PICTURE, **doc}
    if kind == "array":
        return {**_lists(leaf), **doc}
    return {"type": "string", **doc} if kind == "text" else {"type": "array", "items": {"type": "string"}, **doc}


def _actions(spec: Mapping[str, Any]) -> dict[str, Any]:
    action = spec.get("action")
    if action is None:
        return dict(_NUMBERS)
    steps = [] if spec.get("horizon") is None else [spec["horizon"]]
    return _lists({**action, "shape": [*steps, *action["shape"]]})


def _lists(leaf: Mapping[str, Any]) -> dict[str, Any]:
    """Lists in lists, by a shape; a size that may be any is null."""
    number = {"b": "boolean", "i": "integer", "u": "integer"}.get(str(leaf["dtype"])[:1], "number")
    schema: dict[str, Any] = {"type": number}
    for size in reversed(leaf["shape"]):
        sizes = {} if size is None else {"minItems": size, "maxItems": size}
        schema = {"type": "array", "items": schema, **sizes}
    return schema
