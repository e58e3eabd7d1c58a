"""Which Wall-X model to serve, in the founding document's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from policyserve.core.errors import ConfigError

# What the two default configurations name where a path of the user's belongs.
PATH_FIELDS = ("model_path", "action_tokenizer_path", "train_config_path")
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?", re.ASCII)
_NO_CAMERAS = ("prompt", "state", "dataset_names", "noise")  # an observation's other keys


@dataclass(frozen=True)
class ModelConfig:
    """One model and the robot that it was trained for. Raises ConfigError for a number out of its bounds."""

    model_path: str = "/path/to/model"
    """Directory of the pretrained checkpoint; `stand-in`: no model, numbers without a meaning of the same shape."""
    action_tokenizer_path: str = "/path/to/action_tokenizer"
    """Directory of the action tokenizer."""
    train_config_path: str = "/path/to/train_config"
    """The training run's YAML file."""
    state_dim: int = 8
    """Numbers in the robot's state."""
    action_dim: int = 7
    """Numbers in one action."""
    pred_horizon: int = 32
    """Actions per answer."""
    device: str = "cuda"
    """Where the model runs: cpu, cuda or cuda:N."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """What it computes in."""
    predict_mode: Literal["fast", "diffusion"] = "fast"
    """How it makes actions: tokens, or flow sampling."""
    camera_key: list[str] = field(default_factory=lambda: ["front_view", "left_wrist_view"])
    """The images of an observation, in the order that the model was trained with."""

    def __post_init__(self) -> None:
        for name in ("state_dim", "action_dim", "pred_horizon"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f"device: expected cpu, cuda or cuda:N, got {self.device!r}")
        check_camera_keys(self.camera_key)

    @property
    def missing_paths(self) -> tuple[str, ...]:
        """The paths that are needed and that nobody has given yet; sampled actions need no action tokenizer."""
        needed = [name for name in PATH_FIELDS if self.predict_mode == "fast" or name != "action_tokenizer_path"]
        return tuple(name for name in needed if getattr(self, name) == getattr(ModelConfig, name))


def check_camera_keys(keys: list[str]) -> None:
    """Raise ConfigError unless there is at least one, all differ, and none is another key of an observation."""
    if not keys:
        raise ConfigError("camera_key: expected at least one key, such as front_view, got none")
    for key in keys:
        if not key.strip("/ ") or key in _NO_CAMERAS:
            others = ", ".join(_NO_CAMERAS)
            raise ConfigError(f"camera_key: expected names of images (an observation has {others} too), got {key!r}")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(f"camera_key: expected different keys, got {', '.join(twice)} twice")


# By the founding command's --env.
MODEL_CONFIGS: Mapping[str, ModelConfig] = {
    "libero": ModelConfig(),
    "aloha": ModelConfig(state_dim=14, action_dim=14, camera_key=["face_view", "left_wrist_view", "right_wrist_view"]),
}
