"""What people look at in a recording: camera pictures and named numbers, of messages that are recorded as they are.

Made by the process that writes. What cannot be read has no view, and nothing here raises for it.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from policyserve import dialects
from policyserve.core.arrays import Array
from policyserve.core.dialect import Dialect
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import WireError
from policyserve.core.leaf_specs import ArraySpec, ImageSpec
from policyserve.core.spec import PolicySpec, look_up, paths_in
from policyserve.dialects.rest.recognition import FAMILIES
from policyserve.recordings.layout import PolicyFacts, json_of

_QUALITY = 80
_BETWEEN_NS = 90_000_000  # pictures of a camera, at least: a JPEG takes milliseconds, and the raw message is there too
_MOST_NUMBERS = 256  # of an array that is shown
_LEAST_SIDE = 4  # pixels: what is smaller is a matrix
_NS = 1_000_000_000
_TIME = {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}}
_PICTURE = (
    "foxglove.CompressedImage",
    json.dumps(
        {
            "title": "foxglove.CompressedImage",
            "description": "A compressed image",
            "type": "object",
            "properties": {
                "timestamp": {**_TIME, "title": "time"},
                "frame_id": {"type": "string"},
                "data": {"type": "string", "contentEncoding": "base64"},
                "format": {"type": "string"},
            },
        }
    ).encode(),
)
_NUMBERS = ("policyserve.Numbers", json.dumps({"type": "object", "additionalProperties": True}).encode())


class View(NamedTuple):
    """A message of a topic for viewers, as JSON of a schema: its name, and itself."""

    topic: str
    schema: tuple[str, bytes]
    message: bytes


class Views:
    """Makes them for the sessions that it is told of."""

    def __init__(self) -> None:
        self._dialects: dict[int, Dialect] = {}
        self._spec: PolicySpec | None = None  # of the policy that was told of last
        self._specs: dict[str, PolicySpec | None] = {}  # by the policy's name
        self._policies: dict[int, str] = {}  # of sessions, where there are several
        self._shown_at: dict[tuple[int, str], int] = {}

    def note(self, event: str, session: int, told: Mapping[str, Any], policy: PolicyFacts | None) -> None:
        """An event of the recording."""
        if event in ("opened", "dialect") and told["dialect"] in (*dialects.names(), *FAMILIES):
            self._dialects[session] = dialects.spoken(told["dialect"])
        if event == "opened" and told.get("policy"):
            self._policies[session] = told["policy"]
        elif event == "closed":
            self._dialects.pop(session, None)
            self._policies.pop(session, None)
            self._shown_at = {place: at for place, at in self._shown_at.items() if place[0] != session}
        elif event == "policy" and policy is not None:
            self._spec = self._specs[policy.name] = _spec_of(policy)

    def of_request(self, session: int, message: bytes | memoryview, at: int) -> list[View]:
        """Its cameras, and its numbers and texts."""
        dialect = self._dialects.get(session)
        try:
            return [] if dialect is None else list(self._of_request(dialect, session, message, at))
        except Exception:  # a client's message, that the server has refused, too
            return []

    def of_reply(self, session: int, message: bytes | memoryview, at: int) -> list[View]:
        """Its actions."""
        dialect = self._dialects.get(session)
        try:
            return [] if dialect is None else [self._of_reply(dialect, session, message)]
        except Exception:  # an error, say
            return []

    def _spec_of(self, session: int) -> PolicySpec | None:
        return self._specs.get(self._policies.get(session, ""), self._spec)

    def _of_request(self, dialect: Dialect, session: int, message: bytes | memoryview, at: int) -> Iterator[View]:
        observation = dialect.read_request(message).observation
        told: dict[str, Any] = {}
        spec = self._spec_of(session)
        for path in paths_in(observation):
            value = look_up(observation, path)
            leaf = None if spec is None else spec.leaves.get(path)
            picture = picture_of(value) if leaf is None or isinstance(leaf, ImageSpec) else None
            if isinstance(value, EncodedImage):
                if self._is_due(session, path, at):
                    yield View(f"/s{session}/{path}", _PICTURE, _compressed(bytes(value.check(path).data), path, at))
            elif picture is not None:
                if self._is_due(session, path, at):
                    yield View(f"/s{session}/{path}", _PICTURE, _compressed(jpeg(picture), path, at))
            elif isinstance(value, np.ndarray):
                if value.size <= _MOST_NUMBERS:
                    told[path] = named(value, leaf)
            elif isinstance(value, (str, int, float, bool)):
                told[path] = value
        yield View(f"/s{session}/state", _NUMBERS, json_of(told))

    def _of_reply(self, dialect: Dialect, session: int, message: bytes | memoryview) -> View:
        actions = np.asarray(dialect.read_reply(message).actions)
        its = self._spec_of(session)
        spec = None if its is None else its.action
        rank = max(actions.ndim - 1, 0) if spec is None else len(spec.shape)
        first = actions.reshape(-1, *actions.shape[actions.ndim - rank :])[0] if actions.size else actions
        told = {"action": named(first, spec), "steps": 1 if actions.ndim == rank else len(actions)}
        if actions.size <= _MOST_NUMBERS:
            told["chunk"] = actions.tolist()
        return View(f"/s{session}/action", _NUMBERS, json_of(told))

    def _is_due(self, session: int, path: str, at: int) -> bool:
        place = session, path
        if at - self._shown_at.get(place, -_NS) < _BETWEEN_NS:
            return False
        self._shown_at[place] = at
        return True


def _spec_of(policy: PolicyFacts) -> PolicySpec | None:
    try:
        return policy.policy_spec()
    except WireError:  # another server's, told in its own way
        return None


def named(value: Array, leaf: Any) -> Any:
    """An array's numbers by their names: the words of its description where it has one for each, else 0 and up."""
    flat = np.asarray(value).reshape(-1).tolist()
    return dict(zip(names_of(len(flat), leaf) or map(str, range(len(flat))), flat, strict=True))


def names_of(count: int, leaf: Any) -> list[str]:
    """The words of an array's description where it has one for each of so many numbers; else none."""
    doc = leaf.doc if isinstance(leaf, ArraySpec) else ""
    words = [word.strip() for word in doc.split(",")]
    return words if len(set(words)) == count > 1 else []


def picture_of(value: Any) -> Array | None:
    """An array as a picture, (H, W, 3) or (H, W), uint8; None for what is none."""
    if not isinstance(value, np.ndarray) or value.ndim not in (2, 3, 4):
        return None
    if value.ndim == 4 and value.shape[0] == 1:
        value = value[0]
    if value.ndim == 3 and value.shape[-1] not in (1, 3) and value.shape[0] in (1, 3):
        value = value.transpose(1, 2, 0)
    if value.ndim == 3 and value.shape[-1] == 1:
        value = value[..., 0]
    if value.ndim not in (2, 3) or min(value.shape[:2]) < _LEAST_SIDE or (value.ndim == 3 and value.shape[-1] != 3):
        return None
    if value.dtype == np.uint8:
        return value
    if value.dtype.kind != "f":
        return None
    least, most = float(value.min()), float(value.max())
    if not 0 <= most - least <= 2 or least < -1 or most > 1:
        return None
    return ((value + 1) * 127.5 if least < 0 else value * 255).astype(np.uint8)


def jpeg(picture: Array) -> bytes:
    """A picture as JPEG."""
    from PIL import Image

    if picture.ndim == 3 and picture.strides[-1] != 1:  # of planes: merging them takes a tenth of making them one array
        planes = (np.ascontiguousarray(picture[..., channel]) for channel in range(3))
        image = Image.merge("RGB", [Image.fromarray(plane) for plane in planes])
    else:
        image = Image.fromarray(np.ascontiguousarray(picture))
    with BytesIO() as file:
        image.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()


def _compressed(encoded: bytes, path: str, at: int) -> bytes:
    timestamp = {"sec": at // _NS, "nsec": at % _NS}
    data = b64encode(encoded).decode()
    return json.dumps({"timestamp": timestamp, "frame_id": path, "data": data, "format": "jpeg"}).encode()
