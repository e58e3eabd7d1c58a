"""Encoded pictures inside MessagePack maps, in vla-eval's spelling, which every family that marks arrays takes here.

    {"__image__": True, "format": "jpeg", "data": bin, "shape": [480, 640, 3]}

Keys are written as texts, read as texts or bins. The picture's own header counts, `shape` is a hint that is not read.
The format may be `png`; of `raw` the data are an array's, with a `dtype`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.arrays import Array, Bin, read_array
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import WireError

MARK = "__image__"
_RAW = "raw"
_EXPECTED = "an image with format and data"


def read_image(value: Mapping[str, Any]) -> EncodedImage | Array | None:
    """The picture of a marked map, None if it carries no mark. Raises WireError where a part of it is missing."""
    if value.get(MARK) is not True:
        return None
    form, data = value.get("format"), value.get("data")
    if not isinstance(form, str):
        raise WireError("", _EXPECTED, "no format" if form is None else "a format that is no text")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise WireError("", _EXPECTED, "no data" if data is None else "data that are no bin")
    if form == _RAW:
        return read_array(data, value.get("dtype"), value.get("shape"), "")
    return EncodedImage(bytes(data) if isinstance(data, Bin) else data, form)


def mark_image(image: EncodedImage) -> dict[str, Any]:
    """The marked map of a picture."""
    return {MARK: True, "format": image.format, "data": bytes(image.data), "shape": list(image.shape)}
