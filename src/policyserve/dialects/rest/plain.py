"""Plain JSON, for curl and programs without NumPy: numbers as lists, pictures as base64 of a PNG or JPEG."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import PolicyserveError, WireError
from policyserve.core.leaf_specs import array_of_list, name_of
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Observation, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.rest.asking import is_picture_array
from policyserve.dialects.rest.bodies import ReplyBody
from policyserve.dialects.rest.family import SHAPES, Family
from policyserve.dialects.rest.pictures import from_base64, is_picture
from policyserve.dialects.rest.plain_errors import plain_error

_PICTURES = frozenset(("image", "images"))
_NO_PICTURE = "the base64 of a PNG or JPEG; a path or a URL is never opened here"


class Plain(Family):
    """{"state": [0.1, …], "image": base64, "prompt": "…"}, or any keys of the policy's own -> {"actions": [[…]]}."""

    name = "json"

    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """The fields by their own names; of a list, `images/0`, `images/1` and so on. Raises WireError."""
        if not fields:
            raise WireError("", "an observation", "an empty map", SHAPES)
        return {key: _read(value, key, key in _PICTURES) for key, value in fields.items()}

    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """Lists, in the shape that the policy answered, and where the time went."""
        times = {"infer_ms": timing.infer_ms, "queue_ms": timing.queue_ms, "total_ms": timing.total_ms}
        extras = {key: _lists(value) for key, value in chunk.extras.items()}
        return {**extras, "actions": np.asarray(chunk.actions).tolist(), "server_timing": times}

    def refusal(self, error: PolicyserveError, detail: str) -> ReplyBody:
        """A status of 4xx or 5xx, path, expected, got and cure."""
        return plain_error(error, detail)

    def body(self, observation: Observation) -> Any:
        """Its own keys: numbers as lists; pictures as base64, or those that are arrays as json-numpy marks them."""
        return {key: _written(value) for key, value in observation.items()}


def _read(value: Any, path: str, are_pictures: bool) -> Any:
    if isinstance(value, dict):
        return {key: _read(inner, f"{path}/{key}", are_pictures or key in _PICTURES) for key, inner in value.items()}
    if is_picture(value):
        return from_base64(value, path)
    if isinstance(value, str) and are_pictures:
        raise WireError(path, _NO_PICTURE, name_of(value))
    if isinstance(value, list):
        return _read_list(value, path, are_pictures)
    return value


def _read_list(value: list[Any], path: str, are_pictures: bool) -> Any:
    if any(isinstance(inner, (str, dict)) or inner is None for inner in value):
        read = [_read(inner, f"{path}[{index}]", are_pictures) for index, inner in enumerate(value)]
        return {str(index): one for index, one in enumerate(read)} if are_pictures else read
    return array_of_list(value, path, "an array of numbers")


def _written(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _written(inner) for key, inner in value.items()}
    if isinstance(value, EncodedImage):
        return base64.b64encode(value.data).decode()
    return value if is_picture_array(value) else _lists(value)


def _lists(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value
