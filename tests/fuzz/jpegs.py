"""JPEGs that were changed: each is a picture of the shape that its header tells, or refused by its path."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from policyserve.core.encoded_images import EncodedImage, check_images
from policyserve.core.errors import BadObservation
from policyserve.core.limits import WireLimits
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


def check_jpegs(data: bytes) -> None:
    """A seed with changes, or bytes alone."""
    choices = Choices(data)
    changed = choices.rest() if choices.chance(8) else choices.scribbled(choices.pick(SEEDS))
    with suppress(BadObservation):
        image = EncodedImage(changed)
        check_images({"cam": image}, "", _LIMITS)
        if jpeg.is_installed():
            assert jpeg.decode(image, "cam").shape == image.shape
