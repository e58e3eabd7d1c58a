"""A package called openpi with the names and signatures that policyserve calls, and policies that answer numbers."""

from __future__ import annotations

from pathlib import Path

_CONFIG = """
import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    name: str
    policy_metadata: dict | None = None


_CONFIGS = {"pi05_droid": TrainConfig("pi05_droid", {"reset_pose": [0.0, -1.5]}), "debug": TrainConfig("debug")}


def get_config(config_name: str) -> TrainConfig:
    if config_name not in _CONFIGS:
        raise ValueError(f"Config '{config_name}' not found. Did you mean 'pi05_droid'?")
    return _CONFIGS[config_name]
"""
_BASE = '''
import abc


class BasePolicy(abc.ABC):
    @abc.abstractmethod
    def infer(self, obs: dict) -> dict:
        """Infer actions from observations."""

    def reset(self) -> None:
        """Reset the policy to its initial state."""
        pass
'''
_POLICY_CONFIG = """
import pathlib

import numpy as np

from openpi.base_policy import BasePolicy
from openpi.training import config as _config


class Policy(BasePolicy):
    def __init__(self, prompt, device, metadata):
        self._prompt, self._device, self._metadata = prompt, device, metadata or {}

    def infer(self, obs: dict, *, noise: np.ndarray | None = None) -> dict:
        if "prompt" not in obs and self._prompt is None:
            raise ValueError("Prompt is required")
        actions = np.full((10, 8), float(np.sum(obs["observation/joint_position"])), np.float32)
        told = {"prompt": str(obs.get("prompt", self._prompt)), "device": str(self._device)}
        return {"state": np.zeros(8, np.float32), "actions": actions, "policy_timing": {"infer_ms": 1.0}, **told}

    @property
    def metadata(self) -> dict:
        return self._metadata


def create_trained_policy(
    train_config: _config.TrainConfig,
    checkpoint_dir: pathlib.Path | str,
    *,
    repack_transforms=None,
    sample_kwargs: dict | None = None,
    default_prompt: str | None = None,
    norm_stats: dict | None = None,
    pytorch_device: str | None = None,
) -> Policy:
    if not str(checkpoint_dir).startswith("gs://"):
        assert pathlib.Path(checkpoint_dir).is_dir()
    return Policy(default_prompt, pytorch_device, train_config.policy_metadata)
"""


def install(directory: Path) -> None:
    """Put the package into a directory of the Python path."""
    modules = {
        "base_policy": _BASE,
        "training/config": _CONFIG,
        "policies/policy_config": _POLICY_CONFIG,
        **{f"{package}__init__": "" for package in ("", "training/", "policies/")},
    }
    for module, source in modules.items():
        path = directory / "openpi" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
