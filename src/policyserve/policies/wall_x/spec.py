"""What a Wall-X policy takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.spec import ArraySpec, ImageSpec, LeafSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.policies.prefix import rtc_facts, rtc_leaves
from policyserve.policies.wall_x.config import ModelConfig
from policyserve.policies.wall_x.images import ImageLayout

_COLOR_LAYOUTS: Mapping[ImageLayout, tuple[str, ...]] = {
    "any": ("HWC", "CHW", "1HWC", "1CHW"),
    "HWC": ("HWC", "1HWC"),
    "CHW": ("CHW", "1CHW"),
}


@dataclass(frozen=True)
class CameraSpec(ImageSpec):
    """One camera's image. cameras: all that the model looks through, told to whoever names one wrongly.

    example_size: height and width of the example, as any size passes.
    """

    cameras: tuple[str, ...] = ()
    example_size: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{super().__str__()} (the cameras are {', '.join(self.cameras)})"

    def example(self, batch: tuple[int, ...] = ()) -> Array:
        if self.example_size is None:
            return super().example(batch)
        height, width = self.example_size
        return replace(self, height=height, width=width, example_size=None).example(batch)


@dataclass(frozen=True)
class RowSpec(ArraySpec):
    """Numbers in one row; a leading axis of 1 is taken off, since the original takes both."""

    names: tuple[str, ...] = ()

    def read(self, value: Any, path: str) -> tuple[Array, int | None]:
        if isinstance(value, np.ndarray) and value.ndim == len(self.shape) + 1 and value.shape[0] == 1:
            value = value[0]
        return super().read(value, path)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **({"names": list(self.names)} if self.names else {})}


@dataclass(frozen=True)
class DatasetSpec(TextListSpec):
    """The name of a data set, alone or in a list. names: the known ones."""

    names: tuple[str, ...] = ()

    def example(self, batch: tuple[int, ...] = ()) -> list[str]:
        return list(self.names[:1]) or super().example(batch)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **({"names": list(self.names)} if self.names else {})}


def wall_x_spec(
    config: ModelConfig,
    *,
    default_prompt: str | None = None,
    env: str | None = None,
    max_batch: int = 1,
    image_layout: ImageLayout = "any",
    image_sizes: Sequence[tuple[int, int]] | None = None,
    noise_width: int | None = None,
    state_optional: bool = False,
    normalises_state: bool = False,
    dataset_names: Sequence[str] = (),
    action_names: Sequence[str] | None = None,
    state_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    method: str | None = None,
) -> PolicySpec:
    """The spec of the model that `config` describes, cameras in its order.

    default_prompt: for observations without a prompt; None: they are refused. env: for the greeting. image_sizes:
    height and width of each camera's example. noise_width: of the sampler's start, for a model that has one.
    normalises_state: the state is in the robot's units, not scaled yet.
    method: of real-time chunking, None: clients send no prefix.
    """
    layouts = (*_COLOR_LAYOUTS[image_layout], "HW")
    cameras: dict[str, LeafSpec] = {
        key: CameraSpec(
            layouts=layouts,
            dtypes=("uint8", "float"),
            doc="camera; a float one in 0 … 1",
            cameras=tuple(config.camera_key),
            example_size=size,
        )
        for key, size in zip(config.camera_key, image_sizes or [None] * len(config.camera_key), strict=True)
    }
    unit = "in its own units" if normalises_state else "as the model takes it: scaled by the client, or never"
    doc = f"the robot's proprioception, {unit}"
    observation: dict[str, LeafSpec] = {
        **cameras,
        "prompt": TextSpec("the task", default=default_prompt),
        "state": RowSpec((config.state_dim,), "float32", doc, optional=state_optional, names=tuple(state_names or ())),
        "dataset_names": DatasetSpec(
            "the data set whose statistics scale state and actions", optional=True, names=tuple(dataset_names)
        ),
    }
    if noise_width is not None:
        shape = (config.pred_horizon, noise_width)
        observation["noise"] = RowSpec(shape, "float32", "where the sampler starts, for equal answers", optional=True)
    return PolicySpec(
        "wall_x",
        observation={**observation, **(rtc_leaves(config.pred_horizon, config.action_dim) if method else {})},
        action=ArraySpec((config.action_dim,), "float32", "the robot's action, in its own units"),
        horizon=config.pred_horizon,
        max_batch=max_batch,
        metadata={
            "action_dim": config.action_dim,
            "pred_horizon": config.pred_horizon,
            "device": config.device,
            "predict_mode": config.predict_mode,
            "env": env,
            **({"action_names": list(action_names)} if action_names else {}),
            **({"dataset_names": list(dataset_names)} if dataset_names else {}),
            **(metadata or {}),
            **(rtc_facts(method) if method else {}),
        },
        dialect="wall_x",
    )
