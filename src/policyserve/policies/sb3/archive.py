"""What a zip of Stable-Baselines3 holds that serving needs: how the policy was made, its spaces, its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError, names_told
from policyserve.policies.files import reading
from policyserve.policies.sb3.pickles import told_of
from policyserve.policies.sb3.spaces import Dict, Leaf, read_space
from policyserve.policies.sb3.tensors import StateDict
from policyserve.policies.zips import Zip

_VERSION = "_stable_baselines3_version"
# What tells the algorithms apart whose policies are of one class.
_ALGORITHMS = (
    ("TRPO", "cg_max_steps"),
    ("TQC", "top_quantiles_to_drop_per_net"),
    ("SAC", "target_entropy"),
    ("TD3", "policy_delay"),
    ("PPO", "clip_range"),
    ("A2C", "gae_lambda"),
    ("DQN", "exploration_fraction"),
)


@dataclass(frozen=True, eq=False)
class Archive:
    """One zip.

    policy_module: where the class of the policy lives. kwargs: what its constructor got, as far as JSON can say it.
    version: of Stable-Baselines3, empty if the zip does not tell.
    """

    told: str
    algorithm: str
    policy_module: str
    kwargs: Mapping[str, Any]
    observation: Leaf | Dict
    action: Leaf
    weights: StateDict
    version: str


def read_archive(path: Path) -> Archive:
    """Read a zip; raises ConfigError that begins with its path and names the part that is wrong."""
    told = str(path)
    with reading(path, "a zip of Stable-Baselines3"):
        content = path.read_bytes()
    entries = Zip(content, told)
    if "data" not in entries or "policy.pth" not in entries:
        got = names_told(entries)
        raise ConfigError(f"{told}: expected a zip of Stable-Baselines3 with data and policy.pth in it, got {got}")
    with reading(f"{told}: data", "JSON"):
        data = json.loads(bytes(entries["data"]))
    if not isinstance(data, dict):
        raise ConfigError(f"{told}: data: expected a JSON map, got {type(data).__name__}")
    action = read_space(data.get("action_space"), f"{told}: action_space")
    if isinstance(action, Dict):
        raise ConfigError(
            f"{told}: action_space: expected one space, got a Dict, which Stable-Baselines3 does not train"
        )
    return Archive(
        told,
        algorithm_of(data),
        _module_of(data.get("policy_class"), told),
        _kwargs_of(data.get("policy_kwargs"), told),
        read_space(data.get("observation_space"), f"{told}: observation_space"),
        action,
        StateDict(entries["policy.pth"], f"{told}: policy.pth"),
        _version_of(entries),
    )


def algorithm_of(data: Mapping[str, Any]) -> str:
    """What trained it, by the settings that only one algorithm has; empty if none is there."""
    found = next((name for name, setting in _ALGORITHMS if setting in data), "")
    is_ddpg = found == "TD3" and data.get("policy_delay") == 1 and data.get("target_noise_clip") == 0
    return "DDPG" if is_ddpg else found


def _module_of(described: Any, told: str) -> str:
    module = described.get("__module__") if isinstance(described, dict) else None
    if not isinstance(module, str):
        raise ConfigError(f"{told}: policy_class: expected a class and its __module__, got {told_of(described)}")
    return module


def _kwargs_of(described: Any, told: str) -> Mapping[str, Any]:
    if described is None:
        return {}
    if not isinstance(described, dict):
        raise ConfigError(f"{told}: policy_kwargs: expected a map, got {told_of(described)}")
    return described


def _version_of(entries: Zip) -> str:
    return bytes(entries[_VERSION][:40]).decode("utf-8", "replace").strip() if _VERSION in entries else ""
