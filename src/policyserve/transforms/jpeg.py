"""Pictures to JPEGs and back, by libjpeg-turbo as `simplejpeg` has it, and PNGs to pictures, by Pillow (extra `jpeg`).

A JPEG of 480 x 640 pixels takes about a millisecond each way, a PNG some ten; both let go of the interpreter meanwhile.
A server must not decode in its event loop all the same: everybody would wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.encoded_images import EXPECTED, PNG, EncodedImage
from policyserve.core.errors import BadObservation, MissingDependency
from policyserve.core.png_header import pixels_alone

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
        picture = _decode_png(image) if image.format == PNG else _decode_jpeg(image)
    except ImportError:
        hint = "pip install 'policyserve[jpeg]' where it runs, or images=\"raw\" in the client"
        raise BadObservation(
            path, f"an array: no {image.format.upper()} can be decoded here", str(image), hint
        ) from None
    except Exception as error:  # a stranger's bytes
        got = f"one that is broken: {str(error) or type(error).__name__:.80}"
        raise BadObservation(path, EXPECTED[image.format], got) from None
    if image.is_channels_first:
        picture = np.ascontiguousarray(picture.transpose(2, 0, 1))
    if picture.shape != image.shape:
        raise BadObservation(path, str(image), f"pixels of {picture.shape}")
    return picture


def _decode_jpeg(image: EncodedImage) -> Array:
    import simplejpeg

    is_gray = len(image.shape) == 2
    picture: Array = simplejpeg.decode_jpeg(image.data, "GRAY" if is_gray else "RGB", False, False)
    return picture[..., 0] if is_gray and picture.ndim == 3 else picture


def _decode_png(image: EncodedImage) -> Array:
    from PIL import Image

    with Image.open(BytesIO(pixels_alone(image.data)), formats=("PNG",)) as opened:
        return np.array(opened)


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
