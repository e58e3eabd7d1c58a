"""What a PNG's header says, and the parts of it that hold its pixels; nothing is decoded. Pure.

Pictures of 8 bits in gray, RGB or RGBA are taken. A decoder gets the pixels' own chunks alone: what else may stand in a
PNG (texts, colour profiles, animations) is compressed by itself, and nobody asked for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from policyserve.core.arrays import Buffer

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: 1, 2: 3, 6: 4}  # numbers of a pixel by colour type
_OTHER_KINDS = {3: "a PNG with a palette", 4: "a gray PNG with transparency"}
_HEADER = struct.Struct(">I4sIIBBBBB")  # its chunk, up to its check sum
_CHUNK = struct.Struct(">I4s")
_CHECK_SUM = 4  # bytes
_LARGEST = 1 << 31
_MOST_CHUNKS, _LEAST_CHUNK = 64, 1024  # libpng writes 8 KiB of pixels in one


class NotTakenError(ValueError):
    """What was found in place of a picture that is taken. cure: what to do."""

    def __init__(self, got: str, cure: str = "") -> None:
        super().__init__(got)
        self.cure = cure


def read_png_header(data: Buffer) -> tuple[int, ...]:
    """The shape that a PNG decodes to, (H, W), (H, W, 3) or (H, W, 4); raises NotTakenError. It reads 29 bytes."""
    head = bytes(data[len(SIGNATURE) : len(SIGNATURE) + _HEADER.size])
    if len(head) < _HEADER.size:
        raise NotTakenError("a PNG that ends in its header")
    size, name, width, height, bits, colours, compression, filtering, interlacing = _HEADER.unpack(head)
    if (size, name) != (13, b"IHDR") or compression or filtering or interlacing > 1:
        raise NotTakenError("a PNG whose header is broken")
    if colours not in _COLOURS:
        raise NotTakenError(_OTHER_KINDS.get(colours, "a PNG whose header is broken"), "save it as RGB")
    if bits != 8:
        raise NotTakenError(f"a PNG of {bits} bits", "save it with 8 bits")
    if not 0 < height < _LARGEST or not 0 < width < _LARGEST:
        raise NotTakenError(f"a PNG of {height} x {width} pixels")
    return (height, width) if colours == 0 else (height, width, _COLOURS[colours])


def pixels_alone(data: Buffer) -> bytes:
    """The PNG without the chunks that hold no pixels; raises NotTakenError for one in more pieces than pixels need."""
    pieces = [SIGNATURE, *(bytes(data[begin:end]) for begin, end, name in _chunks(data) if name in _WITH_PIXELS)]
    return b"".join(pieces)


_WITH_PIXELS = frozenset((b"IHDR", b"IDAT", b"IEND"))


def _chunks(data: Buffer) -> Iterator[tuple[int, int, bytes]]:
    """Where each chunk begins and ends, and its name."""
    left = _MOST_CHUNKS + len(data) // _LEAST_CHUNK
    position = len(SIGNATURE)
    while position + _CHUNK.size <= len(data):
        size, name = _CHUNK.unpack(bytes(data[position : position + _CHUNK.size]))
        end = position + _CHUNK.size + size + _CHECK_SUM
        left -= 1
        if left < 0:
            raise NotTakenError("a PNG in too many pieces", f"save it in pieces of at least {_LEAST_CHUNK} bytes")
        if end > len(data):
            raise NotTakenError("a PNG that is cut off")
        yield position, end, name
        if name == b"IEND":
            return
        position = end
