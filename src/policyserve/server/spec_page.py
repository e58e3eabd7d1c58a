"""/spec: what a greeting tells, as JSON, for clients whose dialect has no greeting, and for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.printable import text_of
from policyserve.server.routes import Asked, Response, Route, Routes, json_of

_MOST_NUMBERS = 1000  # of an array in the metadata; of a larger one dtype and shape are told
_MOST_OF_TEXT = 200  # characters of what JSON has no form for


def add_spec(routes: Routes, metadata: Callable[[], Mapping[str, Any]], path: str = "/spec") -> None:
    """Add /spec, or another path. metadata: that of greetings; empty until the policy is ready."""
    made: list[tuple[Mapping[str, Any], Response]] = []  # at most one: metadata may be large, and seldom changes

    def spec(asked: Asked) -> Response:
        told = metadata()
        if not told:
            return json_of(503, {"status": "loading"})
        if not made or made[0][0] is not told:
            made[:] = [(told, json_of(200, _plain_map(told)))]
        return made[0][1]

    routes.add(path, Route(spec, shares_path=path == "/spec", is_listed=path == "/spec"))


def _plain_map(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {text_of(key): _plain(inner) for key, inner in value.items()}


def _plain(value: Any) -> Any:
    """A value as JSON can say it; numbers that it has no form for are null."""
    if isinstance(value, Mapping):
        return _plain_map(cast(Mapping[Any, Any], value))
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in cast(list[Any], value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        array: Array = value
        return _plain(array.tolist()) if array.size <= _MOST_NUMBERS else describe(array.dtype, array.shape)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else text_of(value, _MOST_OF_TEXT)
