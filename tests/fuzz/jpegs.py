"""JPEGs and PNGs that were changed: each is a picture of the shape that its header tells, or refused by its path."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import numpy as np

from policyserve.core.encoded_images import EncodedImage, check_images
from policyserve.core.errors import BadObservation
from policyserve.core.limits import WireLimits
from policyserve.core.png_header import SIGNATURE
from policyserve.transforms import jpeg
from tests.fuzz.choices import Choices

# A baseline JPEG's header and scan, without the tables that a decoder needs.
BARE = bytes.fromhex(
    "ffd8 ffc0 0011 08 0008 0008 03 012200 021101 031101 ffda 000c 03 0100 0211 0311 003f00 fca28a28 ffd9"
)
_LIMITS = WireLimits(max_image_mpixels=0.1)  # what is larger is refused before it is decoded


def _seeds() -> tuple[bytes, ...]:
    """JPEGs to begin with: of two sizes and qualities where they can be made here."""
    if not jpeg.is_installed():
        return (BARE,)
    pictures = [np.arange(side * 24 * 3, dtype=np.uint32).reshape(side, 24, 3) % 251 for side in (8, 40)]
    made = [bytes(jpeg.encode(one.astype(np.uint8), quality).data) for one in pictures for quality in (20, 95)]
    return (BARE, *made)


SEEDS = _seeds()


def _png(width: int, height: int, colours: int, numbers: int, pieces: int) -> bytes:
    """A PNG whose pixels stand in so many chunks."""
    rows = b"".join(bytes((row % 5,)) + bytes(range(width * numbers)) for row in range(height))
    packed = zlib.compress(rows)
    step = -(-len(packed) // pieces)
    content = [packed[at : at + step] for at in range(0, len(packed), step)]
    head = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tEXt", b"a\0b"), *((b"IDAT", piece) for piece in content), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


PNG_SEEDS = (_png(4, 3, 2, 3, 1), _png(20, 9, 6, 4, 3), _png(16, 16, 0, 1, 2))


def check_pngs(data: bytes) -> None:
    """The same for PNGs."""
    choices = Choices(data)
    changed = choices.rest() if choices.chance(8) else choices.scribbled(choices.pick(PNG_SEEDS))
    with suppress(BadObservation):
        image = EncodedImage(changed, "png")
        check_images({"cam": image}, "", _LIMITS)
        assert jpeg.decode(image, "cam").shape == image.shape


def check_jpegs(data: bytes) -> None:
    """A seed with changes, or bytes alone."""
    choices = Choices(data)
    changed = choices.rest() if choices.chance(8) else choices.scribbled(choices.pick(SEEDS))
    with suppress(BadObservation):
        image = EncodedImage(changed)
        check_images({"cam": image}, "", _LIMITS)
        if jpeg.is_installed():
            assert jpeg.decode(image, "cam").shape == image.shape
