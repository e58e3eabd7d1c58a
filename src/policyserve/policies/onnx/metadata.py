"""What exporters write into an ONNX file about its robot, as values for a spec's metadata. mjlab's are known."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

_NUMBERS = ("joint_stiffness", "joint_damping", "default_joint_pos", "action_scale")
_NAMES = ("joint_names", "command_names", "observation_names", "body_names")
_NESTED = ("observation_terms_scale", "observation_terms_clip", "observation_terms_history_length")
_OURS = ("spec", "policyserve", "backend", "device")  # keys of a greeting, or of the spec that is made of the file
_MOST_KEYS = 64
_LONGEST = 8192  # characters of one value


def read_metadata(found: Mapping[str, str]) -> dict[str, Any]:
    """The file's metadata: lists of numbers and names where mjlab writes them, else its texts.

    What is very long is left out, since every client is told the rest when it connects.
    """
    kept = {key: text for key, text in found.items() if key not in _OURS and len(key) + len(text) <= _LONGEST}
    return {key: _value(key, text) for key, text in [*kept.items()][:_MOST_KEYS]}


def _value(key: str, text: str) -> Any:
    if key in _NAMES:
        return [part for part in text.split(",") if part]
    if key in _NESTED:
        return [_numbers(part, ";") for part in text.split(",")]
    return _numbers(text, ",") if key in _NUMBERS else text


def _numbers(text: str, separator: str) -> Any:
    """The numbers of a list, or the text as it is where one is none."""
    try:
        numbers = [float(part) for part in text.split(separator) if part]
    except ValueError:
        return text
    return numbers if all(map(isfinite, numbers)) else text


def action_doc(metadata: Mapping[str, Any]) -> str:
    """What the action is, as far as the file tells."""
    doc = "as the model gives it"
    if "action_scale" in metadata and "default_joint_pos" in metadata:
        doc += "; joint targets are default_joint_pos + action_scale * action, which the robot computes"
    return doc


def observation_doc(metadata: Mapping[str, Any]) -> str:
    """What a single vector of observations is made of, where the file tells."""
    names = metadata.get("observation_names")
    return ", ".join(names) if isinstance(names, list) else ""
