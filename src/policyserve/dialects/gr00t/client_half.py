"""A client's half of GR00T's dialect: asks as N1.6 does, which servers of N1.7 read too, and reads every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.dialect import code_in_text
from policyserve.core.errors import RemoteError, WireError, names_told
from policyserve.core.limits import REPLY_LIMITS
from policyserve.core.messages import Message, Observation, Reply, leaves
from policyserve.dialects.gr00t.envelope import GET_ACTION
from policyserve.dialects.gr00t.observations import KINDS
from policyserve.dialects.gr00t.spellings import NPY
from policyserve.dialects.packing import packed
from policyserve.dialects.sendable import type_name, why_not
from policyserve.dialects.unpacking import unpack

PING = packed({"endpoint": "ping"})
_TEXT = "annotation.human.task_description"
_PICTURE_AXES, _STATE_AXES = 5, 3  # with batch and time


def write_request(observation: Observation, endpoint: str = GET_ACTION) -> bytes:
    """Write an observation; raises WireError with the path of what the wire cannot carry.

    Pictures `images/front` or `video.front`, states `state/arm`, `state.arm` or `state`, texts: GR00T's axes of batch
    and time are added. What stands in maps `video`, `state` and `language` goes out as it is.
    """
    refusal = why_not(observation, NPY.write)
    if refusal is not None:
        raise refusal
    nested: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for path, value in leaves(observation):
        kind, name, written = _written(path, value)
        nested[kind][name] = written
    return packed({"endpoint": endpoint, "data": {"observation": nested, "options": None}}, default=NPY.write)


def with_token(message: bytes, token: str) -> bytes:
    """A message of ours with an API key; as it is, if the key is empty. Its map has less than fifteen entries."""
    return bytes((message[0] + 1,)) + message[1:] + packed("api_token") + packed(token) if token else message


def check_pong(message: Message) -> None:
    """Read the answer to PING; raises RemoteError for the server's error, WireError for what is no map."""
    _raise_error(_decoded(message))


def read_reply(message: Message) -> Reply:
    """Read an answer of any version; its actions are the groups side by side, (T, D) where there is no batch.

    Raises RemoteError for the server's error, WireError for what is no answer.
    """
    decoded = _decoded(message)
    _raise_error(decoded)
    decoded = NPY.unmark({"answer": decoded})["answer"]
    groups, info = (decoded[0], decoded[1]) if isinstance(decoded, list) and len(decoded) == 2 else (decoded, {})
    if not isinstance(groups, dict) or not groups or not all(isinstance(one, np.ndarray) for one in groups.values()):
        got = names_told(groups) if isinstance(groups, dict) else type(groups).__name__
        raise WireError("", "a map of action groups", got)
    fields = {**(info if isinstance(info, dict) else {}), **groups}
    return Reply(_joined(groups), {}, fields)


def _decoded(message: Message) -> Any:
    return unpack(message, texts=True, limits=REPLY_LIMITS)


def _raise_error(decoded: Any) -> None:
    if isinstance(decoded, dict) and isinstance(decoded.get("error"), str):
        raise RemoteError(decoded["error"], code=code_in_text(decoded["error"]))


def _joined(groups: Mapping[str, Array]) -> Array:
    arrays = [array if array.ndim > 1 else array.reshape(-1, 1) for array in groups.values()]
    try:
        joined = np.concatenate(arrays, axis=-1)
    except ValueError as error:
        raise WireError("", "action groups of the same steps", ", ".join(str(one.shape) for one in arrays)) from error
    return joined[0] if joined.ndim == _STATE_AXES and len(joined) == 1 else joined


def _written(path: str, value: Any) -> tuple[str, str, Any]:
    """A value's kind, its name there, and its value with all axes."""
    if isinstance(value, str):
        return "language", path if path.startswith("annotation.") else _TEXT, [[value]]
    if isinstance(value, list) and all(isinstance(text, (str, list)) for text in value):
        return "language", path.removeprefix("language/"), value
    array = _numbers(path, value)
    for prefix in ("images/", "video/", "video."):
        if path.startswith(prefix):
            return "video", path.removeprefix(prefix), _with_axes(array, _PICTURE_AXES)
    if array.dtype == np.uint8 and array.ndim >= _STATE_AXES:
        return "video", path, _with_axes(array, _PICTURE_AXES)
    name = path
    for prefix in ("state/", "state."):
        name = name.removeprefix(prefix)
    return "state", name, _with_axes(array.astype(np.float32, copy=False), _STATE_AXES)


def _numbers(path: str, value: Any) -> Array:
    try:
        array: Array = np.asarray(value)
    except ValueError as error:  # a list of several shapes
        raise WireError(path, "an array of numbers, or texts", type_name(value)) from error
    if array.dtype.kind not in "biuf":
        raise WireError(path, "an array of numbers, or texts", type_name(value))
    return array


def _with_axes(array: Array, count: int) -> Array:
    return array.reshape((1,) * max(count - array.ndim, 0) + array.shape)
