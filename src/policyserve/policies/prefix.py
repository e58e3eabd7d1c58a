"""The prefix of real-time chunking in a request: the rows that a robot will execute until the next chunk is there.

A policy that takes one has the leaves of rtc_leaves() in its spec, which a client may leave out, and says so with
rtc_facts() in its metadata. docs/wire/openpi.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation
from policyserve.core.spec import ArraySpec

ActionKind = Literal["position", "velocity", "delta", "torque"]

_KEY = "rtc"
_WHOLE = ("prev_chunk", "prev_length", "inference_delay")
_END = "prefix_attention_horizon"
_MISSING = "all of rtc/prev_chunk, rtc/prev_length and rtc/inference_delay, or none"


class Prefix(NamedTuple):
    """What a client knows of the rows that it will execute, counted from the observation on.

    rows: (H, D) float32, in physical units, zeros behind the known ones. known: how many they are. delay: how many of
    them will have run before the answer is there. end: the row where guidance ends; None: the policy decides.
    """

    rows: Array
    known: int
    delay: int
    end: int | None = None


def rtc_leaves(horizon: int, width: int) -> Mapping[str, Any]:
    """What goes into a spec's observation so that clients may send a prefix of (horizon, width)."""
    rows = "actions that will be executed from this observation on; the last known one again behind"
    leaves = {
        "prev_chunk": ArraySpec((horizon, width), "float32", rows, optional=True),
        "prev_length": ArraySpec((), "int32", "how many of them are known; 0: none", optional=True),
        "inference_delay": ArraySpec((), "int32", "how many will have run when the answer is there", optional=True),
        _END: ArraySpec((), "int32", "the row where guidance ends; left out: the last known one", optional=True),
    }
    return {_KEY: leaves}


def rtc_facts(method: str, kind: ActionKind | None = None, max_delay: int | None = None) -> Mapping[str, Any]:
    """What goes into a spec's metadata beside rtc_leaves().

    kind: what an action is. max_delay: the largest inference delay that the policy was trained for; None: any.
    """
    return {_KEY: {"methods": [method], "max_delay": max_delay, "action_kind": kind}}


def read_prefix(observation: Mapping[str, Any]) -> Prefix | None:
    """The prefix of an observation that met its spec; None if the client sent none.

    Raises BadObservation for numbers of rows that cannot be, and for rows that are no finite numbers.
    """
    sent = cast(Mapping[str, Any], observation.get(_KEY) or {})
    if not sent:
        return None
    for name in _WHOLE:
        if name not in sent:
            raise BadObservation(f"{_KEY}/{name}", _MISSING, f"only {', '.join(f'{_KEY}/{one}' for one in sent)}")
    rows: Array = sent["prev_chunk"]
    known, delay = (_count(sent, name) for name in _WHOLE[1:])
    if known > len(rows):
        raise BadObservation(f"{_KEY}/prev_length", f"at most {len(rows)}, a chunk's rows", f"{known}")
    finite = np.isfinite(rows[:known]).all(axis=1)
    if not finite.all():
        got = f"NaN or Inf in row {int(np.argmin(finite))}"
        raise BadObservation(f"{_KEY}/prev_chunk", f"finite numbers in its first {known} rows", got)
    clean = np.zeros_like(rows)
    clean[:known] = rows[:known]
    return Prefix(clean, known, min(delay, known), _count(sent, _END) if _END in sent else None)


def rtc_extras(method: str, prefix: Prefix | None) -> Mapping[str, Any]:
    """What an answer tells of the prefix that it was made with; nothing where the request carried none.

    Numbers and a text alone: openpi's clients take each array of a reply for one of as many rows as its actions.
    """
    if prefix is None:
        return {}
    return {_KEY: {"method": method, "inference_delay": prefix.delay, "rows": prefix.known}}


def _count(sent: Mapping[str, Any], name: str) -> int:
    value = int(sent[name])
    if value < 0:
        raise BadObservation(f"{_KEY}/{name}", "0 or more", f"{value}")
    return value
