"""What vla-eval's harness and its servers tell each other before they begin.

The harness builds its benchmark by what the server wants (`observation_params`: a wrist camera, the robot's state), and
compares conventions (`observation_spec`, `action_spec`), which it logs where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.encoded_images import GREETING_KEY

NAME = "vla_eval"  # the key of a policy's metadata under which it says what is told here, and more
_VERSIONS = {"harness_version": "0.8.0", "protocol_version": 1}  # whose wire this is
_SPECS = ("observation_params", "action_spec", "observation_spec")
_OURS = ("policyserve", "spec", GREETING_KEY)  # what clients of this package look for
_WRIST_WORDS = ("wrist", "hand", "gripper")
_CAMERAS = "images/"  # what the names of cameras begin with


def hello() -> dict[str, Any]:
    """What a client says."""
    return dict(_VERSIONS)


def answer_to_hello(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a server says. metadata: a greeting's; what the policy declares under `vla_eval` goes before its spec."""
    declared = metadata.get(NAME)
    told = declared if isinstance(declared, Mapping) else {}
    derived = _derived(metadata)
    answer: dict[str, Any] = {**_VERSIONS, "model_server": told.get("model_server", _OURS[0]), "capabilities": {}}
    for key in _SPECS:
        found = told[key] if key in told else derived.get(key)
        if found:
            answer[key] = found
    return {**answer, **{key: metadata[key] for key in _OURS if key in metadata}}


def is_ours(answer: Mapping[str, Any]) -> bool:
    """Whether a server of this package answered a hello so."""
    return _OURS[0] in answer


def _derived(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the policy's spec says. How an action's numbers are meant it does not, so there is no action_spec."""
    spec = metadata.get("spec")
    described = spec if isinstance(spec, Mapping) else {}
    leaves: Mapping[str, Any] = described.get("observation") or {}
    cameras = [path for path, leaf in leaves.items() if leaf.get("kind") == "image"]
    needed = {path: leaf["kind"] for path, leaf in leaves.items() if not leaf.get("optional")}
    params = {
        "send_wrist_image": any(word in path for path in cameras for word in _WRIST_WORDS),
        "send_state": "array" in needed.values(),
    }
    specs: dict[str, Any] = {}
    for name, path in {**{path: path for path in cameras}, **described.get("aliases", {})}.items():
        if name.startswith(_CAMERAS) and needed.get(path) == "image":
            specs[name.removeprefix(_CAMERAS)] = {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"}
    if "text" in needed.values():
        specs["language"] = {"name": "language", "dims": 0, "format": "language"}
    return {"observation_params": {key: True for key, wanted in params.items() if wanted}, "observation_spec": specs}
