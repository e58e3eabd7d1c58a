"""Pictures to JPEGs and back, by libjpeg-turbo as `simplejpeg` (the extra `jpeg`) has it.

Both take about a millisecond for 480 x 640 pixels, and let go of the interpreter meanwhile. A server must not decode in
its event loop all the same: everybody would wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.encoded_images import EXPECTED, EncodedImage
from policyserve.core.errors import BadObservation, MissingDependency

MOST_SIDE = 65500  # pixels, that libjpeg encodes
_COLOURS = "420"  # for each four pixels one colour, as cameras and most programs do


def is_installed() -> bool:
    """Whether pictures can be encoded and decoded here."""
    return find_spec("simplejpeg") is not None


def require() -> None:
    """Raise MissingDependency where they cannot be."""
    if not is_installed():
        raise MissingDependency("simplejpeg", "jpeg")


def load() -> None:
    """Import what encodes and decodes, where it is installed: the first picture would wait for it, some 20 ms."""
    with suppress(ImportError):
        import_module("simplejpeg")


def encode(picture: Array, quality: int) -> EncodedImage:
    """A picture as JPEG. picture: (H, W, 3) uint8, RGB, of at most MOST_SIDE a side. quality: 1 … 100."""
    import simplejpeg

    pixels = np.ascontiguousarray(picture)
    made = EncodedImage(simplejpeg.encode_jpeg(pixels, quality, "RGB", _COLOURS, fastdct=False))
    made.shape = pixels.shape
    return made


def decode(image: EncodedImage, path: str) -> Array:
    """The picture, uint8 of the image's shape; raises BadObservation that names the path.

    image: checked, so that its size is known to be within bounds.
    """
    try:
        import simplejpeg
    except ImportError:
        hint = "pip install 'policyserve[jpeg]' where it runs, or images=\"raw\" in the client"
        raise BadObservation(path, "an array: no JPEG can be decoded here", str(image), hint) from None
    is_gray = len(image.shape) == 2
    try:
        picture: Array = simplejpeg.decode_jpeg(image.data, "GRAY" if is_gray else "RGB", False, False)
    except Exception as error:  # a stranger's bytes
        raise BadObservation(path, EXPECTED, f"one that is broken: {str(error) or type(error).__name__:.80}") from None
    picture = picture[..., 0] if is_gray and picture.ndim == 3 else picture
    if image.is_channels_first:
        picture = np.ascontiguousarray(picture.transpose(2, 0, 1))
    if picture.shape != image.shape:
        raise BadObservation(path, str(image), f"pixels of {picture.shape}")
    return picture


def decode_images(value: Any, path: str = "") -> Any:
    """An observation with a picture in place of each encoded image, whose header is read where it was not yet.

    The same object where there is none. Raises BadObservation that names the path.
    """
    if isinstance(value, EncodedImage):
        return decode(value if value.shape else value.check(path), path)
    if isinstance(value, Mapping):
        made = {key: decode_images(inner, f"{path}/{key}" if path else str(key)) for key, inner in value.items()}
        return value if all(made[key] is inner for key, inner in value.items()) else made
    if isinstance(value, list) and EncodedImage in map(type, value):
        return [decode_images(inner, f"{path}[{index}]") for index, inner in enumerate(value)]
    return value
