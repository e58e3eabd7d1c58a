"""What the greetings of several families say of a policy: what it declares, else what follows from its spec.

A policy declares a fact by its metadata, under the name that the greeting has for it. A value of another type than the
family's is another fact of the same name, and is not taken for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from policyserve.core.roles import words_of

ACTION_SPACES = ("joint_position", "joint_velocity", "cartesian_position", "cartesian_velocity")
_CARTESIAN = 7  # numbers of an action: a pose and a gripper; joint spaces have one more
_MOST_EXTERNAL = 2


def roboarena_facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """RoboArena's six keys; of a policy without a spec the original's defaults: two cameras, 224 x 224."""
    cameras = cameras_of(metadata)
    declares = bool(_leaves(metadata))
    wrists = [path for path in cameras if "wrist" in words_of(path)]
    external = {_without_side(path) for path in cameras if path not in wrists}
    derived = {
        "image_resolution": image_size(metadata) if declares else [224, 224],
        "needs_wrist_camera": bool(wrists) or not declares,
        "n_external_cameras": min(len(external), _MOST_EXTERNAL) if declares else 1,
        "needs_stereo_camera": any(_is_pair(path, cameras) for path in cameras),
        "needs_session_id": True,  # it says which episode a request is of
        "action_space": "cartesian_position" if action_size(metadata) == _CARTESIAN else "joint_position",
    }
    return {key: metadata[key] if _is_fact(key, metadata.get(key, ...)) else value for key, value in derived.items()}


def chunk_size(metadata: Mapping[str, Any]) -> int:
    """How many rows an answer has; 1 where nobody knows, so that clients ask for each action anew."""
    horizon = _spec(metadata).get("horizon")
    told = metadata.get("action_chunk_size"), horizon, metadata.get("pred_horizon")
    return next((steps for steps in told if isinstance(steps, int) and steps >= 1), 1)


def action_size(metadata: Mapping[str, Any]) -> int | None:
    """How many numbers an action has, where it is known."""
    action = _spec(metadata).get("action")
    size = action["shape"][-1] if isinstance(action, Mapping) and action.get("shape") else metadata.get("action_dim")
    return size if _is_whole(size) else None


def cameras_of(metadata: Mapping[str, Any]) -> list[str]:
    """The paths of the spec's pictures, in its order."""
    return [path for path, leaf in _leaves(metadata).items() if leaf.get("kind") == "image"]


def image_size(metadata: Mapping[str, Any]) -> list[int] | None:
    """Height and width of the spec's pictures; None where they are free, or differ."""
    sizes = {(leaf.get("height"), leaf.get("width")) for leaf in _leaves(metadata).values() if leaf["kind"] == "image"}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return None if height is None or width is None else [height, width]


def model_name(metadata: Mapping[str, Any]) -> str:
    """What a policy calls itself, where it does."""
    name = metadata.get("name")
    return name if isinstance(name, str) else "policyserve"


def _spec(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = metadata.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def _leaves(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    found = _spec(metadata).get("observation")
    return found if isinstance(found, Mapping) else {}


def _is_fact(key: str, value: Any) -> bool:
    """Whether a policy's value is of the type that RoboArena's clients expect."""
    if key == "image_resolution":
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_whole, value))
        return value is None or is_pair
    if key == "n_external_cameras":
        return _is_whole(value) and 0 <= value <= _MOST_EXTERNAL
    if key == "action_space":
        return value in ACTION_SPACES if isinstance(value, str) else False
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _without_side(path: str) -> str:
    """The camera that one eye of a stereo pair belongs to."""
    return re.sub(r"_(left|right)$", "", path)


def _is_pair(path: str, cameras: list[str]) -> bool:
    return {f"{_without_side(path)}_left", f"{_without_side(path)}_right"} <= set(cameras)
