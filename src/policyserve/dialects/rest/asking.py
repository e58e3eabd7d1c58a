"""What clients of `/act` share: an observation by what its values are, and what an answer's status says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.dialect import code_in_text
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import RemoteError, WireError
from policyserve.core.messages import Message, Observation, leaves
from policyserve.core.printable import one_line
from policyserve.core.roles import IMAGES, PROMPT, STATE
from policyserve.dialects.rest import json_numpy
from policyserve.dialects.rest.bodies import ReplyBody

_PREFIXES = (f"{IMAGES}/", "observation/")  # which say nothing where a wire has a place for pictures
_LONGEST = 300  # letters of a stranger's page


class Sorted(NamedTuple):
    """An observation by what its values are. states: numbers by their part; empty name: the only ones."""

    pictures: dict[str, Array | EncodedImage]
    states: dict[str, Array]
    prompt: str
    rest: dict[str, Any]

    @property
    def state(self) -> dict[str, Array]:
        """{"state": all parts side by side}, empty where there are none."""
        parts = [np.ravel(part) for part in self.states.values()]
        return {STATE: np.concatenate(parts)} if parts else {}


def sort(observation: Observation) -> Sorted:
    """Sort an observation: bytes of three axes are a picture, `state` and `prompt` go by their names."""
    found = Sorted({}, {}, "", {})
    for path, value in leaves(observation):
        head, _, name = path.rpartition("/")
        if isinstance(value, EncodedImage) or is_picture_array(value):
            found.pictures[_camera(path)] = value
        elif isinstance(value, str) and name == PROMPT:
            found = found._replace(prompt=value)
        elif isinstance(value, np.ndarray) and STATE in (name, head.rpartition("/")[2]):
            found.states["" if name == STATE else name] = value
        else:
            found.rest[path] = value
    return found


def is_picture_array(value: Any) -> bool:
    """Whether a value is a picture that is not encoded: bytes with three axes."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3


def some(pictures: Mapping[str, Any], most: int, key: str) -> list[Any]:
    """The pictures in their order; raises WireError where there is none, or there are more than the wire has places."""
    if not 1 <= len(pictures) <= most:
        expected = "one picture" if most == 1 else f"one picture to {most}"
        raise WireError(key, expected, f"{len(pictures)} pictures" if pictures else "none")
    return list(pictures.values())


def as_text(value: Any) -> str:
    """An array, or an encoded picture as its bytes, as the text that X-VLA's clients have in their JSON."""
    array = np.frombuffer(value.data, np.uint8) if isinstance(value, EncodedImage) else np.asarray(value)
    return json_numpy.written(array, is_spaced=True)


def raise_refusal(message: Message) -> None:
    """Raise RemoteError for an answer whose status or `X-Error` says that it is none."""
    if not isinstance(message, ReplyBody):
        return
    told = next((value for name, value in message.headers if name.lower() == "x-error"), "")
    if told:
        raise RemoteError(told, code=code_in_text(told))
    if message.status >= 400:
        text = one_line(bytes(message).decode("utf-8", "replace").strip())[:_LONGEST]
        raise RemoteError(f"HTTP {message.status}: {text}" if text else f"HTTP {message.status}")


def _camera(path: str) -> str:
    """A camera's name: `images/wrist` and `observation/wrist` are `wrist`, `left/image` is `left_image`."""
    for prefix in _PREFIXES:
        path = path.removeprefix(prefix)
    return path.replace("/", "_")
