"""X-VLA's bodies, whose arrays are texts of json-numpy in the JSON. docs/wire/rest.md has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import PolicyserveError, WireError
from policyserve.core.leaf_specs import array_of_list
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Observation, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.marked_arrays import ArraysLeft
from policyserve.dialects.rest import json_numpy
from policyserve.dialects.rest.asking import as_text, some, sort
from policyserve.dialects.rest.bodies import ReplyBody
from policyserve.dialects.rest.family import Family, picture, renamed, steps, text
from policyserve.dialects.rest.json_text import read_json
from policyserve.dialects.rest.pictures import encoded
from policyserve.dialects.rest.plain_errors import with_header

_STEPS = 10  # of denoising, as its clients ask for
_IMAGES = ("image0", "image1", "image2")
_NO_IMAGE = "one picture at least, image0"


class XVLA(Family):
    """{"proprio", "image0" … "image2", "language_instruction", "domain_id", "steps"?} -> {"action": lists}."""

    name = "xvla"

    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """`images/0` … `images/2`, `state`, `prompt`, `domain_id`, and what else there is. Raises WireError."""
        left = ArraysLeft(limits.max_arrays)
        found = [(key, fields.pop(key)) for key in _IMAGES if fields.get(key) is not None]
        images = {str(place): _picture(value, key, left, limits) for place, (key, value) in enumerate(found)}
        if not images:
            raise WireError(_IMAGES[0], _NO_IMAGE, "none")
        if type(fields.get("domain_id")) is not int:
            raise WireError("domain_id", "a whole number", "none" if "domain_id" not in fields else "something else")
        text(fields.get("language_instruction"), "language_instruction")
        if "proprio" in fields:
            fields["proprio"] = _numbers(fields["proprio"], "proprio", left, limits)
        return {"images": images, **renamed(fields, {"proprio": "state", "language_instruction": "prompt"})}

    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """The chunk as plain lists."""
        return {"action": steps(chunk.actions).tolist()}

    def refusal(self, error: PolicyserveError, detail: str) -> ReplyBody:
        """Status 400, and one of the two texts that X-VLA's server has."""
        has_none = isinstance(error, WireError) and error.expected == _NO_IMAGE
        told = "No valid images found." if has_none else "Request failed"
        return with_header(json_numpy.written({"error": told}), 400, error)

    def body(self, observation: Observation) -> Any:
        asked = sort(observation)
        pictures = some(asked.pictures, len(_IMAGES), _IMAGES[0])
        proprio = {key: as_text(state) for key, state in renamed(asked.state, {"state": "proprio"}).items()}
        made: dict[str, Any] = {**proprio, "language_instruction": asked.prompt}
        made.update((key, as_text(picture)) for key, picture in zip(_IMAGES, pictures, strict=False))
        return {**made, "domain_id": 0, "steps": _STEPS, **asked.rest}


def _read(value: Any, path: str, left: ArraysLeft, limits: WireLimits) -> Any:
    """What a text of json-numpy holds; of anything else itself."""
    if not isinstance(value, str):
        return value
    try:
        return json_numpy.unmarked(read_json(value, limits), left)
    except WireError as error:
        where = f"{path}/{error.path}" if error.path else path
        raise WireError(where, error.expected, error.got, error.hint) from None


def _picture(value: Any, path: str, left: ArraysLeft, limits: WireLimits) -> Array | EncodedImage:
    """A picture; an array of one dimension is a JPEG's or a PNG's bytes, read as RGB."""
    read = _read(value, path, left, limits)
    if isinstance(read, list):
        read = _array(read, path)
    if isinstance(read, np.ndarray) and read.ndim == 1 and read.dtype == np.uint8:
        return encoded(memoryview(np.ascontiguousarray(read).data), path)
    return picture(read, path)


def _numbers(value: Any, path: str, left: ArraysLeft, limits: WireLimits) -> Array:
    read = _read(value, path, left, limits)
    if isinstance(read, list):
        return _array(read, path)
    if isinstance(read, np.ndarray):
        return read
    raise WireError(path, "an array of numbers", type(read).__name__)


def _array(items: list[Any], path: str) -> Array:
    return array_of_list(items, path, "an array of numbers")
