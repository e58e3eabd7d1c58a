"""Recognises which family of clients or servers sent a message.

No other module knows what sets the families' messages apart: a dialect asks here whether a message is another one's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyserve.core.errors import WireError, WrongDialect
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message
from policyserve.dialects.unpacking import unpack

META = "__meta__"  # in vibe_rl's messages it describes the arrays
_CONTAINERS = frozenset((dict, list))
_LOOKED_AT = 4096  # items of a first message; a robot sends some hundred
_ROBOARENA_GREETS = frozenset(
    (
        *("image_resolution", "needs_wrist_camera", "n_external_cameras", "needs_stereo_camera", "needs_session_id"),
        "action_space",
    )
)
_SPEAKS_UNASKED, _IS_GREETED = "vibe_rl", "openpi"


def family_of_first_message(message: Message, greeted: bool, limits: WireLimits = DEFAULT_LIMITS) -> str:
    """The family that sent a connection's first message. greeted: it came after the greeting. Never raises.

    A message that carries no mark is vibe_rl's if it came unasked, since the other families that speak first have an
    envelope; else openpi's.
    So is one of thousands of items: it will be decoded again to be read, and both together must not take long.
    """
    try:
        found = family_of(unpack(message, limits=limits.with_items(_LOOKED_AT)))
    except WireError:
        found = None
    return found or (_IS_GREETED if greeted else _SPEAKS_UNASKED)


def family_of_greeting(metadata: Mapping[str, Any]) -> str:
    """The family of a server that greets so; one of ours speaks all, and is taken for openpi's."""
    if "harness_version" in metadata:
        return "vla_eval"
    if "policyserve" in metadata:
        return _IS_GREETED
    if metadata.keys() == _ROBOARENA_GREETS:
        return "roboarena"
    if "action_chunk_size" in metadata:
        return "starvla"
    return "wall_x" if "predict_mode" in metadata else _IS_GREETED


def family_of(message: Any) -> str | None:
    """The family whose marks a decoded message carries; None if it carries none."""
    if isinstance(message, dict):
        for name, is_its in _MARKS:
            if is_its(message):
                return name
    return spelling_of(message)


def check_family(message: Mapping[str, Any], name: str) -> None:
    """Raise WrongDialect if a decoded message carries the marks of another family than `name`'s."""
    found = family_of(message)
    if found not in (None, name):
        raise wrong_dialect(name, found)


def _is_roboarenas(message: Mapping[str, Any]) -> bool:
    return _is_text(message.get("endpoint"))


def _is_behaviors(message: Mapping[str, Any]) -> bool:
    """The simulator's keys, `robot_r1::proprio`, or a reset, which has no array beside it."""
    return any("::" in key for key in message) or ("reset" in message and spelling_of(message) is None)


def _is_starvlas(message: Mapping[str, Any]) -> bool:
    """Its examples, or an envelope; one that is numbered is another family's."""
    is_envelope = _is_text(message.get("type")) and ("payload" in message or "request_id" in message)
    return isinstance(message.get("examples"), list) or (is_envelope and "seq" not in message)


def _is_molmospaces(message: Mapping[str, Any]) -> bool:
    parts = message.get("qpos")
    is_map = isinstance(parts, dict) and _marked(parts) is None  # an array is a map, too
    return is_map and _is_text(message.get("task"))


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bytes, memoryview))  # texts come as bytes where nobody needs them decoded


# What tells a family's first message, before the spelling of its arrays does; the first that holds.
_MARKS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("vla_eval", lambda message: {"type", "payload", "seq"} <= message.keys()),
    ("xpolicylab", lambda message: {"message_type", "message_id"} <= message.keys()),
    ("vibe_rl", lambda message: META in message),
    ("gr00t", lambda message: {"endpoint", "data"} <= message.keys()),
    ("roboarena", _is_roboarenas),
    ("behavior1k", _is_behaviors),
    ("starvla", _is_starvlas),
    ("molmospaces", _is_molmospaces),
)


def check_spelling(message: Mapping[str, Any], spelling: str, name: str) -> None:
    """Raise WrongDialect if a message for the dialect `name` has arrays of another spelling, or is vibe_rl's."""
    found = spelling_of(message)
    if found is None and META in message:
        found = "vibe_rl"
    if found not in (None, spelling):
        raise wrong_dialect(name, found)


def wrong_dialect(name: str, other: str) -> WrongDialect:
    """The refusal of a message of the family `other` where `name` is spoken."""
    return WrongDialect("", f"{name}'s frames", f"{other}'s", f"connect to /{other}")


def spelling_of(value: Any) -> str | None:
    """The family whose marked array stands first in a decoded message; None if it holds no array."""
    if isinstance(value, dict):
        marked = _marked(value)
        if marked is not None:
            return marked
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    else:
        return None
    if _CONTAINERS.isdisjoint(map(type, inside)):
        return None
    for inner in inside:
        found = spelling_of(inner) if type(inner) in _CONTAINERS else None
        if found is not None:
            return found
    return None


def _marked(value: Mapping[str, Any]) -> str | None:
    """The family whose marked array this map is; None for a map that is none."""
    if "__ndarray__" in value or "__npgeneric__" in value:
        return "openpi"
    return "wall_x" if "nd" in value and "type" in value else None
