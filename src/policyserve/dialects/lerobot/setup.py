"""What LeRobot's client says of itself before it asks: its joints and cameras, and which policy it wants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Observation
from policyserve.core.printable import type_name
from policyserve.core.roles import PROMPT
from policyserve.dialects.lerobot.pickled import SETUP, Walk, fields_of, module_of, read_thing

_PICTURES = ("observation.images.", "images/")  # a feature's beginning, and what it is called here
_PICTURE_TYPES = ("image", "video", "VISUAL")
_MOST_ACTIONS = 1 << 20


@dataclass(frozen=True)
class Camera:
    """A picture of an observation. key: the robot's name of it. shape: height, width, channels, where it is told."""

    name: str
    key: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Numbers:
    """Numbers that the robot sends one by one, and a policy takes as one array. joints: their names, in order.

    None: those that come, in the order in which they come, as the clients before 0.4 have it.
    """

    name: str
    joints: tuple[str, ...] | None


@dataclass(frozen=True)
class PolicySetup:
    """What a client wants. policy: the name that it asks for. module: where it knows LeRobot's classes."""

    module: str
    policy_type: str
    policy: str
    device: str
    actions_per_chunk: int
    numbers: tuple[Numbers, ...]
    cameras: tuple[Camera, ...]

    def example(self, limits: WireLimits = DEFAULT_LIMITS) -> Observation:
        """An observation of zeros, as its robot will send it; raises WireError for pictures that are too large.

        Numbers whose names are not told, and pictures whose size is not, are left out.
        """
        made: dict[str, Any] = {
            one.name: np.zeros(len(one.joints), np.float32) for one in self.numbers if one.joints is not None
        }
        for camera in self.cameras:
            if camera.shape is not None:
                _check_size(camera, limits)
                made[camera.name] = np.broadcast_to(np.uint8(0), camera.shape)
        return {**made, PROMPT: ""}

    @property
    def is_whole(self) -> bool:
        """Whether it tells the names of all numbers and the sizes of all pictures."""
        shapes = [camera.shape for camera in self.cameras]
        return all(one.joints is not None for one in self.numbers) and None not in shapes


def read_setup(data: bytes | memoryview, limits: WireLimits = DEFAULT_LIMITS) -> PolicySetup:
    """Read a pickled RemotePolicyConfig; raises WireError with the path of what is wrong."""
    thing = read_thing(data, limits)
    fields = Walk(len(data), limits).value(fields_of(thing, SETUP), "")
    features = fields.get("lerobot_features")
    if not isinstance(features, dict):
        raise WireError("lerobot_features", "a map of features", type_name(features))
    renames = _renames(fields.get("rename_map"))
    numbers, cameras = _sorted(features, renames)
    return PolicySetup(
        module=module_of(thing),
        policy_type=_text(fields, "policy_type"),
        policy=_text(fields, "pretrained_name_or_path"),
        device=_text(fields, "device"),
        actions_per_chunk=_count(fields, "actions_per_chunk"),
        numbers=tuple(numbers),
        cameras=tuple(cameras),
    )


def name_of(feature: str) -> str:
    """What a feature of LeRobot's is called in an observation here."""
    prefix, ours = _PICTURES
    if feature.startswith(prefix):
        return ours + feature.removeprefix(prefix)
    return feature.removeprefix("observation.")


def _sorted(features: Mapping[str, Any], renames: Mapping[str, str]) -> tuple[list[Numbers], list[Camera]]:
    numbers: list[Numbers] = []
    cameras: list[Camera] = []
    taken: set[str] = set()
    for feature, told in features.items():
        path = f"lerobot_features/{feature}"
        if not isinstance(told, dict):
            raise WireError(path, "a map with dtype, shape and names", type_name(told))
        name = name_of(renames.get(feature, feature))
        if name in taken:
            raise WireError(path, "a name of its own", f"{name!r} a second time", "look at the client's rename_map")
        taken.add(name)
        if told.get("dtype", told.get("type")) in _PICTURE_TYPES:
            cameras.append(Camera(name, feature.removeprefix(_PICTURES[0]), _shape(told, path)))
        else:
            numbers.append(Numbers(name, _joints(told.get("names"), path)))
    return numbers, cameras


def _shape(told: Mapping[str, Any], path: str) -> tuple[int, ...] | None:
    """Height, width, channels; None of an old client's feature, whose order of axes is another."""
    if "dtype" not in told:
        return None
    shape = told.get("shape")
    is_shape = isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)
    if not is_shape:
        raise WireError(f"{path}/shape", "height, width and channels", f"{shape!r:.60}")
    assert isinstance(shape, list)
    return tuple(shape)


def _joints(names: Any, path: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WireError(f"{path}/names", "the names of its numbers, in order", f"{names!r:.60}")
    if len(set(names)) != len(names):
        raise WireError(f"{path}/names", "each name once", "one of them twice")
    return tuple(names)


def _renames(told: Any) -> Mapping[str, str]:
    if told is None:
        return {}
    if not isinstance(told, dict) or not all(isinstance(one, str) for one in told.values()):
        raise WireError("rename_map", "a map of names", f"{told!r:.60}")
    return told


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise WireError(name, "a text", type_name(value))
    return value


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 1 <= value <= _MOST_ACTIONS:
        raise WireError(name, f"a whole number from 1 to {_MOST_ACTIONS}", f"{value!r:.40}")
    return value


def _check_size(camera: Camera, limits: WireLimits) -> None:
    height, width, channels = camera.shape or (0, 0, 0)
    is_fine = max(height, width) <= limits.max_image_side and height * width <= limits.max_image_mpixels * 1e6
    if not is_fine or channels > 4:
        most = f"{limits.max_image_side} pixels a side, {limits.max_image_mpixels:g} million in all, 4 channels"
        raise WireError(camera.name, f"a picture of at most {most}", f"{height} x {width} x {channels}")
