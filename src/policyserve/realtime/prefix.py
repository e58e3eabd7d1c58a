"""Real-Time Chunking as a client sees it: what a server's greeting offers, and what a request then carries. Pure.

A request tells the server which rows the robot will execute from the observation on, in the units in which the server
sends them, and how many of these will have run before its answer is there. The leaves are arrays of constant shape, so
that requests keep the layout that the server has learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.core.messages import Observation

PREV_CHUNK = "rtc/prev_chunk"
PREV_LENGTH = "rtc/prev_length"
INFERENCE_DELAY = "rtc/inference_delay"
ATTENTION_HORIZON = "rtc/prefix_attention_horizon"


@dataclass(frozen=True)
class Offer:
    """What a server takes of RTC. horizon, width: of prev_chunk; None: not known before the first chunk.

    has_end: whether it takes a prefix_attention_horizon. max_delay: rows, of a policy that was trained for so many.
    echoes: whether its replies say what was done. method: its name, for a status.
    """

    horizon: int | None = None
    width: int | None = None
    has_end: bool = False
    max_delay: int | None = None
    echoes: bool = True
    method: str = "on"

    def sized(self, horizon: int, width: int) -> Offer:
        """The offer of a server that told no shapes, once a chunk has come."""
        return self if self.horizon is not None else replace(self, horizon=horizon, width=width)


def read_offer(metadata: Mapping[str, Any], rtc: str) -> Offer | None:
    """What the greeting offers; None: no RTC. Raises ConfigError where it is required and not there.

    A server without a greeting, as vibe_rl's, is believed to have what is required.
    """
    if rtc == "off":
        return None
    spec = metadata.get("spec")
    leaves = spec.get("observation") if isinstance(spec, Mapping) else None
    leaf = leaves.get(PREV_CHUNK) if isinstance(leaves, Mapping) else None
    if isinstance(leaves, Mapping) and isinstance(leaf, Mapping):
        shape = leaf.get("shape")
        sizes = [_size(one) for one in shape] if isinstance(shape, (list, tuple)) else []
        horizon, width = sizes if len(sizes) == 2 else (None, None)
        if horizon is None or width is None:
            horizon = width = None
        method, max_delay = _told(metadata.get("rtc"))
        return Offer(horizon, width, ATTENTION_HORIZON in leaves, max_delay, True, method)
    if rtc == "require":
        if not metadata:
            return Offer(echoes=False)
        raise ConfigError(
            f'rtc: expected a server whose spec lists {PREV_CHUNK}, got one without: use rtc="auto", which blends '
            "chunks, or serve a policy that has RTC"
        )
    return None


def leaves_of(offer: Offer, rows: Array, delay: int, end: int | None) -> dict[str, Any]:
    """What a request carries; nothing as long as the shapes are not known.

    rows: (n, D), from the observation's step on. delay: how many of them will have run. end: where guidance ends.
    """
    if offer.horizon is None or offer.width is None:
        return {}
    known = min(len(rows), offer.horizon) if rows.shape[1] == offer.width else 0
    chunk = np.zeros((offer.horizon, offer.width), np.float32)
    if known:
        chunk[:known] = rows[:known]
        chunk[known:] = chunk[known - 1]
    most = known if offer.max_delay is None else min(known, offer.max_delay)
    leaves: dict[str, Any] = {
        PREV_CHUNK: chunk,
        PREV_LENGTH: np.array(known, np.int32),
        INFERENCE_DELAY: np.array(min(delay, most), np.int32),
    }
    if end is not None and offer.has_end:
        leaves[ATTENTION_HORIZON] = np.array(min(end, offer.horizon), np.int32)
    return leaves


def with_leaves(observation: Observation, leaves: Mapping[str, Any]) -> Observation:
    """The observation with them; where the user's own has such a leaf, that stays.

    What is no map goes as it is: whoever sends it says what is wrong with it.
    """
    if not leaves or not isinstance(observation, Mapping):
        return observation
    if "rtc" in observation or any(key in observation for key in leaves):
        return observation
    return {**observation, **leaves}


def method_of(fields: Any) -> str | None:
    """What a reply says of the RTC that was done; None: nothing."""
    told = fields.get("rtc") if isinstance(fields, Mapping) else None
    method = told.get("method") if isinstance(told, Mapping) else None
    return method if isinstance(method, str) else None


def action_kind_of(metadata: Mapping[str, Any]) -> Any:
    """What the greeting says that an action is; None: nothing."""
    told = metadata.get("rtc")
    inner = told.get("action_kind") if isinstance(told, Mapping) else None
    return metadata.get("action_kind", inner)


def _told(rtc: Any) -> tuple[str, int | None]:
    methods = rtc.get("methods") if isinstance(rtc, Mapping) else None
    first = methods[0] if isinstance(methods, (list, tuple)) and methods else None
    max_delay = _size(rtc.get("max_delay"), 0) if isinstance(rtc, Mapping) else None
    return first if isinstance(first, str) else "on", max_delay


def _size(value: Any, least: int = 1) -> int | None:
    """A whole number of a server's, which may have sent anything."""
    is_whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1_000_000
    return value if is_whole else None
