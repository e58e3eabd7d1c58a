"""A camera picture that travels as a JPEG or PNG: its bytes, and what its header says, without decoding it. Pure.

Of JPEGs only what a decoder reads in one pass is taken: baseline, 8 bits, all colours in one scan. A progressive one
can have thousands of scans of a large picture in few bytes, and each would cost as much as a whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.arrays import Buffer
from policyserve.core.errors import BadObservation
from policyserve.core.limits import WireLimits
from policyserve.core.png_header import SIGNATURE, NotTakenError, read_png_header

JPEG, PNG = "jpeg", "png"
IMAGES_HEADER = "Policyserve-Images"  # of a client's handshake: it would send such pictures, and asks who takes them
GREETING_KEY = "encoded_images"  # in the greeting of a server that was asked: a list of the formats that it takes
EXPECTED = {JPEG: "a baseline JPEG, in colour or gray", PNG: "a PNG of 8 bits, in colour or gray"}
_FORMATS_TOLD = "a baseline JPEG or a PNG"
_MOST_MARKERS = 40  # before a picture's size: cameras write a dozen
_START, _FRAMES, _SCAN = 0xD8, (0xC0, 0xC1), 0xDA
_OTHER_FRAMES = frozenset((0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xDA)))  # markers without a length, none of which belongs before a scan
_GIF, _WEBP = b"GIF8", b"RIFF"
_READERS: Mapping[str, Callable[[Buffer], tuple[int, ...]]]  # of headers, by format


class EncodedImage:
    """A picture as it came. shape: (H, W, 3), (H, W, 4) of a PNG that is transparent, or (H, W) of a gray one.

    It is empty until check() has read the header. To a spec it is an array of uint8 with that shape.
    is_channels_first: it is to become (3, H, W), and its shape is.
    """

    __slots__ = ("data", "format", "is_channels_first", "shape")

    dtype = np.dtype(np.uint8)

    def __init__(self, data: Buffer, form: str = JPEG) -> None:
        self.data = data
        self.format = form
        self.shape: tuple[int, ...] = ()
        self.is_channels_first = False

    def __repr__(self) -> str:
        return f"<{self} of {len(self.data)} bytes>"

    def __str__(self) -> str:
        """What an error says that it got."""
        return f"a {self.format.upper()} of {_sizes_told(self.shape)}" if self.shape else "an encoded image"

    @property
    def size(self) -> int:
        """Its numbers, once decoded."""
        return prod(self.shape)

    nbytes = size

    @property
    def pixels(self) -> int:
        """How many of its numbers are places."""
        colours = 1 if len(self.shape) < 3 else self.shape[0 if self.is_channels_first else 2]
        return self.size // colours

    def check(self, path: str) -> EncodedImage:
        """Itself, its shape known; raises BadObservation that names the path for what is no picture that is taken."""
        read = _READERS.get(self.format)
        if read is None:
            raise BadObservation(path, _FORMATS_TOLD, f"the format {self.format[:20]!r}")
        try:
            self.shape, self.is_channels_first = read(self.data), False
        except NotTakenError as error:
            raise BadObservation(path, EXPECTED[self.format], str(error), error.cure) from None
        return self

    def put_channels_first(self) -> None:
        """Have it become (3, H, W). It is checked, and in colour."""
        height, width, colours = self.shape
        self.shape, self.is_channels_first = (colours, height, width), True


def check_images(value: Any, path: str, limits: WireLimits) -> None:
    """Check each encoded image in maps and lists where no spec says what belongs there; raises BadObservation."""
    if isinstance(value, EncodedImage):
        check_pixels(value.check(path), path, limits)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            check_images(inner, f"{path}/{key}" if path else str(key), limits)
    elif isinstance(value, list) and not _HOLDERS.isdisjoint(map(type, value)):
        for index, inner in enumerate(value):
            check_images(inner, f"{path}[{index}]", limits)


_HOLDERS = frozenset((dict, list, EncodedImage))


def check_pixels(image: EncodedImage, path: str, limits: WireLimits) -> None:
    """Raise BadObservation for a picture that would become larger than it may, before anybody decodes it."""
    height, width = image.shape[:2]
    if max(height, width) > limits.max_image_side:
        raise BadObservation(path, f"an image of at most {limits.max_image_side} pixels a side", str(image))
    if height * width > limits.max_image_mpixels * 1e6:
        expected = f"an image of at most {limits.max_image_mpixels:g} million pixels"
        raise BadObservation(path, expected, str(image))


def check_together(observation: Any, limits: WireLimits) -> bool:
    """Whether encoded images are among an observation's values, at any depth. They are checked, one by one.

    Raises BadObservation if all together would become larger than one may: a message of a few MiB could hold dozens.
    """
    pixels = _pixels_in(observation)
    if pixels > limits.max_image_mpixels * 1e6:
        expected = f"encoded pictures of at most {limits.max_image_mpixels:g} million pixels in one message"
        raise BadObservation("", expected, f"{pixels / 1e6:.1f} million")
    return pixels > 0


def _pixels_in(value: Any) -> int:
    kind = type(value)
    if kind is EncodedImage:
        return value.pixels
    if kind is not dict and kind is not list:
        return 0
    inside = value.values() if kind is dict else value
    return 0 if _HOLDERS.isdisjoint(map(type, inside)) else sum(map(_pixels_in, inside))


class _Header(NamedTuple):
    """What a frame's header says."""

    height: int
    width: int
    colours: int


def read_header(data: Buffer) -> tuple[int, ...]:
    """The shape that a JPEG decodes to; raises NotTakenError. It reads 40 markers at most, and no pixel."""
    if bytes(data[:2]) != bytes((0xFF, _START)):
        raise NotTakenError(_kind_of(data))
    frame: _Header | None = None
    position = 2
    for _ in range(_MOST_MARKERS):
        marker, begin, end = _segment(data, position)
        position = end
        if marker == 0xFF:  # padding
            continue
        if marker in _OTHER_FRAMES:
            kind = "a progressive JPEG" if marker in _PROGRESSIVE else "a JPEG of a rare kind (lossless or arithmetic)"
            raise NotTakenError(kind, "save it as a baseline JPEG")
        if marker in _FRAMES:
            frame = _frame(bytes(data[begin:end]))
        elif marker == _SCAN:
            return _shape_of(frame, data[begin] if end > begin else 0)
    raise NotTakenError(f"a JPEG without a picture in its first {_MOST_MARKERS} markers")


def _segment(data: Buffer, position: int) -> tuple[int, int, int]:
    """A marker, and where what belongs to it begins and ends; of padding just the place behind it."""
    head = bytes(data[position : position + 4])
    if len(head) < 2:
        raise NotTakenError("a JPEG that ends in its header")
    if head[0] != 0xFF or head[1] in _ALONE:
        raise NotTakenError(f"a JPEG with {head[:2].hex(' ')} where a marker belongs")
    if head[1] == 0xFF:
        return 0xFF, position, position + 1
    size = int.from_bytes(head[2:], "big")
    if len(head) < 4 or size < 2 or position + 2 + size > len(data):
        raise NotTakenError("a JPEG that ends in its header")
    return head[1], position + 4, position + 2 + size


def _frame(content: bytes) -> _Header:
    if len(content) < 6 or len(content) != 6 + 3 * content[5]:
        raise NotTakenError("a JPEG whose header is broken")
    bits, colours = content[0], content[5]
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    if bits != 8:
        raise NotTakenError(f"a JPEG of {bits} bits", "save it with 8 bits")
    if not height or not width:
        raise NotTakenError(f"a JPEG of {height} x {width} pixels")
    if colours not in (1, 3):
        kind = "4 colours (CMYK)" if colours == 4 else f"{colours} colours"
        raise NotTakenError(f"a JPEG of {kind}", "save it as RGB")
    return _Header(height, width, colours)


def _shape_of(frame: _Header | None, scanned: int) -> tuple[int, ...]:
    if frame is None:
        raise NotTakenError("a JPEG without a size before its pixels")
    if scanned != frame.colours:
        raise NotTakenError("a JPEG of several scans", "save it as a baseline JPEG with one scan")
    sides = (frame.height, frame.width)
    return sides if frame.colours == 1 else (*sides, frame.colours)


def _read_png(data: Buffer) -> tuple[int, ...]:
    if bytes(data[: len(SIGNATURE)]) != SIGNATURE:
        raise NotTakenError("a JPEG" if bytes(data[:2]) == bytes((0xFF, _START)) else _kind_of(data))
    return read_png_header(data)


_READERS = {JPEG: read_header, PNG: _read_png}


def _kind_of(data: Buffer) -> str:
    begin = bytes(data[: len(SIGNATURE)])
    for magic, kind in ((SIGNATURE, "a PNG"), (_GIF, "a GIF"), (_WEBP, "a WebP")):
        if begin.startswith(magic):
            return kind
    return f"bytes that begin with {begin[:4].hex(' ')}" if begin else "no bytes"


def _sizes_told(shape: tuple[int, ...]) -> str:
    return f"uint8 {shape}" + (", gray" if len(shape) == 2 else "")
