"""What the original programs of GR00T wrote, and what nobody may be harmed by."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from policyserve import ArraySpec, PolicySpec, TextSpec
from tests.shared import shared_path

ARM = PolicySpec(
    "arm",
    {"state": {"single_arm": ArraySpec((5,)), "gripper": ArraySpec((1,))}, "prompt": TextSpec()},
    ArraySpec((6,)),
    horizon=4,
    metadata={"modality": {"single_arm": 5, "gripper": 1}},
)
# What the golden answers have: 0 … 19 in four steps of an arm, and zeros of a gripper.
ACTIONS = np.concatenate([np.arange(20, dtype=np.float32).reshape(4, 5), np.zeros((4, 1), np.float32)], axis=1)


def golden(version: str, name: str) -> bytes:
    """One message: version n15, n16 or n17."""
    return shared_path("design", "golden_more", f"gr00t_{version}", f"{name}.bin").read_bytes()


def unsafe(name: str) -> bytes:
    """One message that must be refused."""
    return shared_path("design", "golden_more", "unsafe", f"gr00t_{name}.bin").read_bytes()


def index(version: str) -> dict[str, Any]:
    """What each file of a version holds, by the file's name."""
    listed = json.loads(shared_path("design", "golden_more", f"gr00t_{version}", "index.json").read_text())
    return {entry["file"].removesuffix(".bin"): entry["content"] for entry in listed["frames"]}


def values_in(content: Any) -> Any:
    """The index's account of a message, with its arrays as arrays."""
    if isinstance(content, dict) and set(content) == {"array"}:
        told = content["array"]
        return np.asarray(told["values"], np.dtype(told["dtype"])).reshape(told["shape"])
    if isinstance(content, dict):
        return {key: values_in(inner) for key, inner in content.items()}
    return [values_in(inner) for inner in content] if isinstance(content, list) else content
