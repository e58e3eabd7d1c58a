"""What `get_modality_config` answers: which parts an observation and an action have, and which steps in time of each.

The originals make a dataclass of each answer, and fail at fields that they don't know: only the two are sent that all
have. N1.5 wants them as a JSON text. One spelling serves all later clients: both markers, and a map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec, TextListSpec, TextSpec
from policyserve.core.roles import PROMPT
from policyserve.core.spec import PolicySpec
from policyserve.dialects.gr00t.groups import names_of
from policyserve.dialects.gr00t.observations import Kind

_USUAL_TEXT = "annotation.human.task_description"
_PREFIXES: Mapping[Kind, tuple[str, ...]] = {
    "video": ("video.", "video/", "images/"),
    "state": ("state.", "state/"),
    "language": ("language.", "language/"),
}


def modality_config(spec: PolicySpec, is_n15: bool) -> dict[str, Any]:
    """The answer, by kind of part."""
    keys: dict[Kind, list[str]] = {"video": [], "state": [], "language": []}
    steps: dict[Kind, int] = {}
    for path, leaf in spec.leaves.items():
        if leaf.optional:
            continue
        kind = _kind_of(leaf)
        keys[kind].append(_name(kind, path))
        steps[kind] = max(steps.get(kind, 1), _steps(kind, leaf))
    made = {kind: _config(names, _history(steps[kind]), kind, is_n15) for kind, names in keys.items() if names}
    ahead = list(range(spec.horizon or 1))
    return {**made, "action": _config(names_of(spec), ahead, "action", is_n15)}


def _config(names: list[str], deltas: list[int], kind: str, is_n15: bool) -> dict[str, Any]:
    if is_n15:
        told = [name if kind == "language" else f"{kind}.{name}" for name in names]
        text = json.dumps({"delta_indices": deltas, "modality_keys": told}, separators=(",", ":"))
        return {"__ModalityConfig_class__": True, "as_json": text}
    facts = {"delta_indices": deltas, "modality_keys": names}
    return {"__ModalityConfig__": True, "__ModalityConfig_class__": True, "as_json": facts}


def _kind_of(leaf: LeafSpec) -> Kind:
    if isinstance(leaf, (TextSpec, TextListSpec)):
        return "language"
    is_video = isinstance(leaf, ArraySpec) and leaf.dtype == "uint8" and len(leaf.shape) > 2
    return "video" if isinstance(leaf, ImageSpec) or is_video else "state"


def _name(kind: Kind, path: str) -> str:
    """What a client calls a part of the spec, so that it meets that again."""
    for prefix in _PREFIXES[kind]:
        if path.startswith(prefix) and path != prefix:
            return path.removeprefix(prefix)
    return _USUAL_TEXT if kind == "language" and path == PROMPT else path


def _steps(kind: Kind, leaf: LeafSpec) -> int:
    """How many steps in time a part has; 1 where it has no such axis, or one of any length."""
    bare = 3 if kind == "video" else 1
    if isinstance(leaf, ArraySpec) and kind != "language" and len(leaf.shape) > bare:
        return leaf.shape[0] or 1
    return 1


def _history(steps: int) -> list[int]:
    """The newest step and those before it."""
    return list(range(1 - steps, 1))
