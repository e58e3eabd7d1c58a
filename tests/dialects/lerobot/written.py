"""The pickles of LeRobot's client, written by the standard library from classes of the same names."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any

MODULE = "lerobot.async_inference.helpers"
JOINTS = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")


@dataclass
class TimedObservation:
    timestamp: float
    timestep: int
    observation: Mapping[str, Any]
    must_go: bool = False


@dataclass
class RemotePolicyConfig:
    policy_type: str
    pretrained_name_or_path: str
    lerobot_features: Mapping[str, Any]
    actions_per_chunk: int
    device: str = "cpu"
    rename_map: Mapping[str, str] = field(default_factory=dict)


class FeatureType(str, Enum):
    STATE = "STATE"
    VISUAL = "VISUAL"


@dataclass
class PolicyFeature:
    """What clients before 0.4 have for a feature."""

    type: FeatureType
    shape: tuple[int, ...]


@contextmanager
def lerobots_modules(module: str = MODULE) -> Iterator[None]:
    """Have the classes above stand where LeRobot's client has them, so that pickle writes what that one writes."""
    names = [module.rsplit(".", parts)[0] for parts in range(module.count("."), -1, -1)]
    made = {name: ModuleType(name) for name in names if name not in sys.modules}
    sys.modules.update(made)
    for kind in (TimedObservation, RemotePolicyConfig, FeatureType, PolicyFeature):
        kind.__module__ = module
        setattr(sys.modules[module], kind.__name__, kind)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def features(joints: tuple[str, ...] = JOINTS, **cameras: tuple[int, int, int]) -> dict[str, Any]:
    told: dict[str, Any] = {"observation.state": {"dtype": "float32", "shape": (len(joints),), "names": list(joints)}}
    for name, shape in cameras.items():
        names = ["height", "width", "channels"]
        told[f"observation.images.{name}"] = {"dtype": "image", "shape": shape, "names": names}
    return told


def setup(
    policy: str, told: Mapping[str, Any] | None = None, *, actions: int = 50, module: str = MODULE, **more: Any
) -> bytes:
    """A pickled RemotePolicyConfig."""
    with lerobots_modules(module):
        made = RemotePolicyConfig("act", policy, features() if told is None else told, actions, **more)
        return pickle.dumps(made, 4)


def seen(
    *joints: float, timestep: int = 0, timestamp: float = 100.0, must_go: bool = True, protocol: int = 4, **more: Any
) -> bytes:
    """A pickled TimedObservation."""
    values = {**dict(zip(JOINTS, joints, strict=False)), **more}
    with lerobots_modules():
        return pickle.dumps(TimedObservation(timestamp, timestep, values, must_go), protocol)
