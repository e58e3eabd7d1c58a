"""A server of an arm with a camera, and what its live page's data say of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from tests.server.live import DEADLINE_S, Live

SPEC = PolicySpec(
    "arm",
    {
        "camera": ImageSpec(32, 32),
        "state": ArraySpec((2,), doc="elbow rad, gripper 0 … 1"),
        "prompt": TextSpec(default=""),
    },
    ArraySpec((2,)),
    metadata={"checkpoint": "step_7"},
)
HTML = "<img src=x onerror=alert(1)>"


def arm() -> Any:
    return FunctionPolicy(lambda seen: seen["state"] * 2, SPEC)


def seen(colour: tuple[int, int, int] = (200, 30, 40)) -> dict[str, Any]:
    picture = np.full((32, 32, 3), colour, np.uint8)
    return {"camera": picture, "state": np.array([1, 2], np.float32), "prompt": HTML}


def told(live: Live, query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
    status, body, _ = live.http("GET", f"/live.json{query}", headers=headers)
    assert status == 200, body
    return json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def until(live: Live, condition: Callable[[dict[str, Any]], Any], query: str = "") -> dict[str, Any]:
    """What the data say once they say this."""
    ends_at = time.monotonic() + DEADLINE_S
    while not condition(now := told(live, query)):
        assert time.monotonic() < ends_at, now
        time.sleep(0.02)
    return now
