"""vibe_rl's dialect: the client speaks first, arrays are raw bytes described in `__meta__`.

Request   {b"obs": raw, b"__meta__": {b"obs": {b"dtype": "<f4", b"shape": [4]}}}
Reply     {b"action": raw, b"__meta__": {b"action": {b"dtype": "<i4", b"shape": []}, b"latency_ms": 1.2}}

All keys that we write are bin, as the original's. It has no error form: an error closes the connection, 1008 for the
client's fault, 1013 for what may succeed later, 1011 for ours. docs/wire/vibe_rl.md has the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from policyserve.core.arrays import MAX_DIMENSIONS, Array, Placed, read_array, read_dtype
from policyserve.core.dialect import ErrorReply, close_code_of, close_reason
from policyserve.core.errors import PolicyserveError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message, Observation, Part, Reply, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.packing import Parts, bin_header, map_header, packed
from policyserve.dialects.pieces import InPieces
from policyserve.dialects.recognition import META as _META
from policyserve.dialects.recognition import spelling_of, wrong_dialect
from policyserve.dialects.sendable import cure, encoded_key, told, type_name
from policyserve.dialects.unpacking import unpack
from policyserve.dialects.views import below


class VibeRL(InPieces):
    """The dialect's two halves; it has no state, one instance serves everybody."""

    name = "vibe_rl"
    greets = False

    def greeting(self, metadata: Mapping[str, Any]) -> None:
        """None: a greeting would be read as the first action."""

    def read_request(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Request:
        """Read an observation; with `obs` as its only key it is bare."""
        fields, meta = _read_fields(message, limits, placed)
        if len(fields) > limits.max_arrays:
            raise WireError("", f"at most {limits.max_arrays} arrays", f"{len(fields)}")
        observation = {key: _read_value(key, value, meta) for key, value in fields.items()}
        if not observation:
            raise WireError("", "at least one array", f"only {_META}")
        return Request(observation, bare=list(observation) == ["obs"])

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
        """Write the actions; extras have no place on this wire."""
        actions = _little_endian(chunk.actions)
        before, after = _around_action(actions.dtype, actions.shape)
        return b"".join((before, actions.tobytes(), after, _LATENCY.pack(timing.total_ms)))

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        return ErrorReply(None, close_code_of(error), close_reason(error))

    def request_parts(self, observation: Observation) -> list[Part]:
        """Write an observation of arrays, flat; raises WireError for a nested map or a text."""
        if not isinstance(observation, Mapping):
            raise WireError("", "a map of arrays", f"a {type_name(observation)}", 'an array alone is {"obs": array}')
        parts = Parts()
        parts.add(map_header(len(observation) + 1))
        meta: dict[bytes, Any] = {}
        for key, value in observation.items():
            name = encoded_key(key)
            if key == _META:
                raise WireError(key, "another key: this one describes the arrays", "an observation's")
            array = _little_endian(_as_numbers(key, value))
            meta[name] = _describe(array.dtype, array.shape)
            parts.add(bin_header(len(name)) + name + bin_header(array.nbytes))
            parts.add_data(array)
        parts.add(packed({b"__meta__": meta})[1:])
        return parts.finish()

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        raise WireError("", "no frame before the first request", "one")

    def reply_fields(self, message: Message, placed: list[Placed] | None = None) -> dict[str, Any]:
        data, meta = _read_fields(message, placed=placed)
        fields: dict[str, Any] = {key: _read_value(key, value, meta) for key, value in data.items()}
        latency_ms = meta.get("latency_ms")
        if isinstance(latency_ms, (int, float)):
            fields["latency_ms"] = float(latency_ms)
        return fields

    def reply_of(self, fields: dict[str, Any]) -> Reply:
        action, latency_ms = fields.get("action"), fields.get("latency_ms")
        if action is None:
            raise WireError("action", "an action", f"keys {_names(fields)}")
        return Reply(action, {"latency_ms": latency_ms} if isinstance(latency_ms, float) else {}, fields)


def _read_fields(
    message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Split a message into its data fields and `__meta__`, which may itself be a packed bin."""
    decoded = unpack(message, placed=placed, limits=limits)
    if not isinstance(decoded, dict):
        raise WireError("", "a map", type(decoded).__name__)
    if _META not in decoded:
        if other := spelling_of(decoded):
            raise wrong_dialect("vibe_rl", other)
        raise WireError(_META, "a map that names each array's dtype and shape", f"keys {_names(decoded)}")
    meta = decoded.pop(_META)
    if isinstance(meta, (bytes, memoryview)):
        try:
            meta = unpack(meta, limits=limits)
        except WireError as error:
            raise below(_META, error) from error
    if not isinstance(meta, dict):
        raise WireError(_META, "a map", type(meta).__name__)
    return decoded, meta


def _read_value(key: str, data: Any, meta: Mapping[str, Any]) -> Array:
    entry = meta.get(key)
    if not isinstance(entry, dict):
        got = f"entries {_names(meta)}" if entry is None else type(entry).__name__
        raise WireError(f"{_META}/{key}", "a map with dtype and shape", got)
    for part in ("dtype", "shape"):
        if part not in entry:
            raise WireError(f"{_META}/{key}", "a map with dtype and shape", f"no {part}")
    if not isinstance(data, (bytes, memoryview)):
        raise WireError(key, "the array's raw bytes", type(data).__name__)
    shape = _read_shape(key, data, entry)
    return read_array(data, entry["dtype"], shape, key)


def _read_shape(key: str, data: bytes | memoryview, entry: Mapping[str, Any]) -> Any:
    """The shape as reshape() takes it: a list, an int, nil for one dimension, one -1 for what is left."""
    shape = entry["shape"]
    if shape is None:
        shape = [-1]
    elif type(shape) is int:
        shape = [shape]
    is_list = isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS and all(type(size) is int for size in shape)
    if not is_list or shape.count(-1) != 1:
        return shape
    itemsize = read_dtype(entry["dtype"], key).itemsize
    known = prod(size for size in shape if size != -1) * itemsize
    if known <= 0 or len(data) % known:
        raise WireError(key, f"a shape that {len(data)} bytes fill", f"{shape!r:.60}")
    return [len(data) // known if size == -1 else size for size in shape]


def _as_numbers(key: str, value: Any) -> Array:
    """The value as an array of numbers; raises WireError, whatever its conversion raises."""
    expected = "an array of numbers: vibe_rl's protocol has nothing else"
    try:
        array: Array = np.asarray(value)
    except Exception as error:  # a stranger's object
        is_ragged = isinstance(value, (list, tuple)) and isinstance(error, ValueError)
        got = f"a {type_name(value)} of several shapes" if is_ragged else told(value)
        raise WireError(key, expected, got, "" if is_ragged else cure(value)) from error
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        hint = "openpi's and Wall-X's dialects carry it" if isinstance(value, (str, Mapping)) else cure(value)
        raise WireError(key, expected, f"a {type_name(value)}" if isinstance(value, str) else told(value), hint)
    return array


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _describe(dtype: np.dtype[Any], shape: tuple[int, ...]) -> dict[bytes, Any]:
    return {b"dtype": dtype.str, b"shape": list(shape)}


@lru_cache(maxsize=1024)
def _around_action(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, bytes]:
    """What stands before and after the data of a reply's actions, up to the latency's number."""
    before = map_header(2) + packed(b"action") + bin_header(prod(shape) * dtype.itemsize)
    meta = {b"action": _describe(dtype, shape), b"latency_ms": 0.0}
    return before, (packed(b"__meta__") + packed(meta))[: -_LATENCY.size]


_LATENCY = struct.Struct(">d")


def _names(keys: Mapping[str, Any]) -> str:
    return ", ".join(keys)[:80] or "none"
