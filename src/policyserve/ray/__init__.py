"""Policies on many machines, by Ray Serve. The one room that imports ray, which comes with the extra `ray`.

`policyserve.ray:app` is what `serve run` and Serve's config files name.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":  # a lane needs neither adapters nor Serve
        from policyserve.ray.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
