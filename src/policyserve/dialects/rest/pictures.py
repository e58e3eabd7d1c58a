"""Pictures as JPEG or PNG in a body: bytes whose format their own beginning tells. Pure."""

from __future__ import annotations

from typing import Any

from policyserve.core.arrays import Buffer
from policyserve.core.encoded_images import JPEG, PNG, EncodedImage
from policyserve.core.errors import WireError
from policyserve.core.png_header import SIGNATURE
from policyserve.dialects.rest.base64_text import read_base64

_BEGINS = ((b"\xff\xd8\xff", JPEG), (SIGNATURE, PNG))
_TEXT_BEGINS = ("/9j/", "iVBORw0KGgo")  # the same in base64
_SCHEME, _MARK = "data:image/", ";base64,"
_SHORTEST = 60  # letters: no picture is smaller, and a text may begin so


def encoded(data: Buffer, path: str) -> EncodedImage:
    """The picture that the bytes are; raises WireError."""
    begin = bytes(data[:8])
    for magic, form in _BEGINS:
        if begin.startswith(magic):
            return EncodedImage(data, form)
    got = f"bytes that begin with {begin.hex(' ')}" if begin else "no bytes"
    raise WireError(path, "the bytes of a JPEG or a PNG", got)


def is_picture(value: Any) -> bool:
    """Whether a text is the base64 of a JPEG or a PNG, or a data URL."""
    if not isinstance(value, str) or len(value) < _SHORTEST:
        return False
    return value.startswith(_TEXT_BEGINS) or (value.startswith(_SCHEME) and _MARK in value[:64])


def from_base64(text: str, path: str) -> EncodedImage:
    """The picture of such a text; raises WireError."""
    if text.startswith(_SCHEME):
        text = text.partition(_MARK)[2]
    return encoded(read_base64(text, path), path)
