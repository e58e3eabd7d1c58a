"""Observations to send: three that robots are known by, one that the server's own spec asks for, one from a file.

The numbers are random, from a fixed seed: zeros would flatter a server that compresses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.core.messages import Observation
from policyserve.core.nearest import nearest

_ANY_SIZE, _ANY_SIDE = 8, 224  # where a spec leaves a size free
_MOST_BYTES = 1 << 30
_IMAGE = {"shape": [224, 224, 3], "dtype": "uint8"}
_CAMERA = {"shape": [3, 480, 640], "dtype": "uint8"}

KNOWN: Mapping[str, Mapping[str, Any]] = {
    "cartpole": {"obs": {"shape": [4], "dtype": "float32"}},
    "libero": {
        "observation/image": _IMAGE,
        "observation/wrist_image": _IMAGE,
        "observation/state": {"shape": [8], "dtype": "float32"},
        "prompt": {"text": "pick up the black bowl and place it on the plate"},
    },
    "aloha": {
        "images": {"cam_high": _CAMERA, "cam_left_wrist": _CAMERA, "cam_right_wrist": _CAMERA},
        "state": {"shape": [14], "dtype": "float32"},
    },
}


@dataclass(frozen=True)
class Payload:
    """An observation and what to call it."""

    name: str
    observation: Observation

    @property
    def size(self) -> int:
        """Bytes of its arrays and texts."""
        return sum(
            value.nbytes if isinstance(value, np.ndarray) else len(str(value)) for _, value in _leaves(self.observation)
        )

    @property
    def images(self) -> list[Array]:
        """Its pictures: arrays of bytes with three axes or more."""
        values = [value for _, value in _leaves(self.observation) if isinstance(value, np.ndarray)]
        return [value for value in values if value.ndim >= 3 and value.dtype == np.uint8]

    def __str__(self) -> str:
        return f"{self.name} ({told_bytes(self.size)})"


def payload_for(name: str, metadata: Mapping[str, Any], dialect: str) -> Payload:
    """The payload called `name`: auto, cartpole, libero, aloha, or a file of the form of read_spec().

    metadata: the server's greeting, whose `spec` makes the payload `auto`. Raises ConfigError.
    """
    if name == "auto":
        observation = _from_greeting(metadata)
    elif name in KNOWN:
        observation = read_spec(KNOWN[name], name)
    elif name.endswith(".json"):
        observation = _read_file(name)
    else:
        raise unknown_payload(name)
    return Payload(Path(name).name, _flat(observation) if dialect == "vibe_rl" else observation)


def told_bytes(size: int) -> str:
    """A size for people: `16 bytes`, `12.3 kB`, `2.77 MB`, `8.40 GB`."""
    if size < 1000:
        return f"{size} bytes"
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"


def _read_file(name: str) -> Observation:
    try:
        return read_spec(_load(Path(name)), name)
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"--payload: {name} is nested too deep, or more than memory holds") from error


def unknown_payload(name: str) -> ConfigError:
    """The complaint about a payload that does not exist."""
    near = nearest(name, ["auto", *KNOWN])
    hint = f" (did you mean {near!r}?)" if near else ""
    return ConfigError(f"--payload: expected auto, {', '.join(KNOWN)} or a .json file, got {name!r}{hint}")


def read_spec(spec: Any, name: str) -> Observation:
    """Make an observation of a description.

    spec: key -> {"shape": […], "dtype": "float32"}, {"text": "…"}, {"texts": […]} or a map of such; a dtype is float32
    if not given. Raises ConfigError that names the key.
    """
    if not isinstance(spec, Mapping) or not spec:
        raise ConfigError(f"{name}: expected a map of key to shape and dtype, or text; got {_kind(spec)}")
    random = np.random.default_rng(0)
    return {str(key): _read_leaf(leaf, f"{name}: {key}", random) for key, leaf in spec.items()}


def _read_leaf(leaf: Any, path: str, random: np.random.Generator) -> Any:
    if not isinstance(leaf, Mapping) or not leaf:
        raise ConfigError(f'{path}: expected {{"shape": …, "dtype": …}} or {{"text": …}}, got {_kind(leaf)}')
    if "shape" in leaf:
        return _read_array(leaf, path, random)
    for key, wanted in (("text", str), ("texts", list)):
        if key in leaf:
            if not isinstance(leaf[key], wanted):
                raise ConfigError(f"{path}: expected a {wanted.__name__} as {key}, got {_kind(leaf[key])}")
            return leaf[key]
    return {str(key): _read_leaf(inner, f"{path}/{key}", random) for key, inner in leaf.items()}


def _read_array(leaf: Mapping[str, Any], path: str, random: np.random.Generator) -> Array:
    shape, dtype = leaf["shape"], leaf.get("dtype", "float32")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= _MOST_BYTES for size in shape):
        raise ConfigError(f"{path}: expected a list of sizes as shape, got {shape!r:.60}")
    try:
        wanted = np.dtype(dtype)
    except Exception as error:  # NumPy's parser raises more than TypeError for texts that are no dtype
        raise ConfigError(f"{path}: expected a dtype such as float32 or uint8, got {dtype!r:.60}") from error
    if wanted.kind not in "biuf":
        raise ConfigError(f"{path}: expected a dtype of numbers, got {dtype!r:.60}")
    if prod(shape) * wanted.itemsize > _MOST_BYTES:
        raise ConfigError(f"{path}: expected at most 1 GiB, got shape {shape} of {wanted.name}")
    if wanted.kind == "f":
        return random.random(shape).astype(wanted)
    return random.integers(0, 256 if wanted == np.uint8 else 2, shape).astype(wanted)


def _from_greeting(metadata: Mapping[str, Any]) -> Observation:
    """What the spec in the greeting of a server of ours asks for; raises ConfigError if there is none."""
    spec = metadata.get("spec")
    observation = spec.get("observation") if isinstance(spec, Mapping) else None
    if not isinstance(observation, Mapping) or not observation:
        told = f"the server does not tell what it takes: name a --payload ({', '.join(KNOWN)}, or a .json file)"
        other = "or give its policy the spec that `policyserve serve POLICY --write-spec FILE` writes"
        raise ConfigError(f"{told}, {other}")
    return read_spec({path: _described(leaf) for path, leaf in observation.items()}, "the server's spec")


def _described(leaf: Any) -> Any:
    """A leaf of a greeting's spec in the form of read_spec()."""
    kind = leaf.get("kind") if isinstance(leaf, Mapping) else None
    if kind == "array":
        return {"shape": [_ANY_SIZE if size is None else size for size in leaf["shape"]], "dtype": leaf["dtype"]}
    if kind == "image":
        sizes = {"H": leaf["height"] or _ANY_SIDE, "W": leaf["width"] or _ANY_SIDE, "C": 3, "1": 1}
        dtype = leaf["dtypes"][0]
        return {
            "shape": [sizes[axis] for axis in leaf["layouts"][0]],
            "dtype": "float32" if dtype == "float" else dtype,
        }
    if kind == "text":
        return {"text": leaf.get("default") or "pick up the cup"}
    return {"texts": ["bench"]} if kind == "text list" else leaf


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--payload: there is no file {path}") from None
    except OSError as error:
        raise ConfigError(f"--payload: {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"--payload: {path} is not JSON: {error}") from error


def _flat(observation: Observation) -> Observation:
    """The observation with paths as keys: vibe_rl's wire has no nested maps."""
    return dict(_leaves(observation))


def _leaves(observation: Observation, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in observation.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _kind(value: Any) -> str:
    return f"an empty {type(value).__name__}" if value in ({}, []) else f"{type(value).__name__} {value!r:.40}"
