"""A client's half: observations and setups as LeRobot's RobotClient pickles them, in gRPC's messages. Pure.

A pickle of protocol 4, written by hand: what `pickle` itself would write needs LeRobot's own classes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import WireError
from policyserve.core.limits import REPLY_LIMITS
from policyserve.core.messages import Observation, leaves
from policyserve.core.roles import PROMPT
from policyserve.dialects.lerobot.messages import BEGIN, END, MIDDLE, write_part
from policyserve.dialects.lerobot.pickled import OBSERVATION, SETUP, Walk, fields_of, read_thing
from policyserve.dialects.sendable import type_name

MODULE = "lerobot.async_inference.helpers"
_TASK = "task"
_STATE, _IMAGES = "observation.", "observation.images."  # how a feature's name begins
_PART_BYTES = 2 << 20
_MOST_NUMBERS = 4096  # of one array: each is a joint with a name
_MOST_ACTIONS = 1000
_NDARRAY, _DTYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"  # the name that each NumPy reads, 1 and 2
_PICTURE_NAMES = ["height", "width", "channels"]


def write_observation(raw: Mapping[str, Any], timestamp: float = 0.0, timestep: int = 0) -> bytes:
    """Pickle a TimedObservation. raw: numbers by joint, arrays, texts. Raises WireError for anything else."""
    fields = {"timestamp": timestamp, "timestep": timestep, "observation": raw, "must_go": True}
    return _pickled(OBSERVATION, fields)


def write_setup(policy: str, features: Mapping[str, Any], actions_per_chunk: int = _MOST_ACTIONS) -> bytes:
    """Pickle a RemotePolicyConfig. policy: the name of one that the server has. features: as features_of() has them."""
    fields = {
        "policy_type": "act",
        "pretrained_name_or_path": policy,
        "lerobot_features": features,
        "actions_per_chunk": actions_per_chunk,
        "device": "cpu",
        "rename_map": {},
    }
    return _pickled(SETUP, fields)


def raw_of(observation: Observation) -> dict[str, Any]:
    """The observation as a robot of LeRobot's has it: numbers one by one, cameras by their names, `task`.

    A vector `state` is `state.0`, `state.1` and so on. Raises WireError with the path of what has no place.
    """
    raw: dict[str, Any] = {}
    for path, value in leaves(observation):
        name = path.rpartition("/")[2]
        if isinstance(value, str):
            raw[_TASK if name == PROMPT else path] = value
        elif isinstance(value, np.ndarray) and value.ndim == 3:
            raw[path.removeprefix("images/")] = value
        elif isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= _MOST_NUMBERS and _is_numbers(value):
            raw.update((f"{path}.{place}", number) for place, number in enumerate(value.tolist()))
        elif isinstance(value, (bool, int, float, np.generic)) and not isinstance(value, np.character):
            raw[path] = value
        else:
            raise WireError(path, "numbers with one axis, a picture with three, or a text", _told(value))
    return raw


def features_of(message: bytes) -> dict[str, Any]:
    """The features of a pickled observation, as the client of such a robot tells them: its joints and its cameras."""
    fields = fields_of(read_thing(message, REPLY_LIMITS), OBSERVATION)
    raw = Walk(len(message), REPLY_LIMITS).value(fields["observation"], "")
    features: dict[str, Any] = {}
    joints: dict[str, list[str]] = {}
    for key, value in raw.items():
        if isinstance(value, np.ndarray) and value.ndim == 3:
            features[f"{_IMAGES}{key}"] = {"dtype": "image", "shape": value.shape, "names": _PICTURE_NAMES}
        elif isinstance(value, (bool, int, float)):
            joints.setdefault(key.rpartition(".")[0] or key, []).append(key)
    for name, names in joints.items():
        features[f"{_STATE}{name}"] = {"dtype": "float32", "shape": (len(names),), "names": names}
    return features


def observation_messages(pickled: bytes) -> Iterator[bytes]:
    """The Observation messages with this pickle, in parts of 2 MiB as LeRobot's client cuts it."""
    for start in range(0, max(len(pickled), 1), _PART_BYTES):
        end = start + _PART_BYTES
        state = END if end >= len(pickled) else BEGIN if not start else MIDDLE
        yield write_part(state, pickled[start:end])


def _is_numbers(array: Array) -> bool:
    return array.dtype.kind in "biuf"


def _told(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else type_name(value)


def _pickled(name: str, fields: Mapping[str, Any]) -> bytes:
    """An object of LeRobot's class of this name."""
    return b"".join((b"\x80\x04", f"c{MODULE}\n{name}\n".encode(), b")\x81", *_written(fields, ""), b"b."))


def _written(value: Any, path: str) -> Iterator[bytes]:
    """The opcodes that make a value; raises WireError."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool):
        yield {None: b"N", True: b"\x88", False: b"\x89"}[value]
    elif isinstance(value, int) and -(1 << 31) <= value < 1 << 31:
        yield b"J" + value.to_bytes(4, "little", signed=True)
    elif isinstance(value, (int, float)):
        yield b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        data = value.encode("utf-8", "replace")
        yield b"X" + len(data).to_bytes(4, "little") + data
    elif isinstance(value, Mapping):
        yield b"}("
        for key, inner in value.items():
            yield from _written(str(key), path)
            yield from _written(inner, f"{path}/{key}" if path else str(key))
        yield b"u"
    elif isinstance(value, (list, tuple)):
        yield b"(" if isinstance(value, tuple) else b"]("
        for inner in value:
            yield from _written(inner, path)
        yield b"t" if isinstance(value, tuple) else b"e"
    elif isinstance(value, np.ndarray) and _is_numbers(value):
        yield from _array(value)
    else:
        raise WireError(path, "a number, a text, an array of numbers, or a map or list of these", type_name(value))


def _array(array: Array) -> Iterator[bytes]:
    """An array as NumPy pickles it: `_reconstruct`, and its shape, dtype and bytes as the state."""
    order = array.dtype.str[0]
    yield _RECONSTRUCT + _NDARRAY + b"K\x00\x85C\x01b\x87R(K\x01"
    yield from _written(array.shape, "")
    yield _DTYPE
    yield from _written(array.dtype.str[1:], "")
    yield b"\x89\x88\x87R(K\x03"
    yield from _written(order, "")
    yield b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    data = array.tobytes()
    yield b"B" + len(data).to_bytes(4, "little")
    yield data
    yield b"tb"
