"""PNGs: what their header says, what of it is taken, and which parts a decoder gets."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.core.encoded_images import EncodedImage, check_images, check_together
from policyserve.core.errors import BadObservation
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.png_header import SIGNATURE, NotTakenError, pixels_alone, read_png_header
from policyserve.core.spec import ImageSpec, PolicySpec
from policyserve.transforms.jpeg import decode, decode_images
from tests.policies.frameworks import import_or_skip
from tests.shared import shared_path

SHAPES = [(5, 7), (5, 7, 3), (5, 7, 4)]


def pixels(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def saved(array: Array, mode: str | None = None, **options: Any) -> bytes:
    """A PNG as Pillow writes it."""
    image = import_or_skip("PIL.Image").fromarray(array)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, "PNG", **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def headed(width: int = 4, height: int = 4, bits: int = 8, colours: int = 2, *more: int) -> bytes:
    rest = more or (0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, *rest))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_png_is_known_by_its_header_and_decoded_to_the_bit(shape: tuple[int, ...]) -> None:
    sent = pixels(shape)
    image = EncodedImage(saved(sent), "png").check("cam")
    assert image.shape == shape
    assert image.pixels == 35
    assert np.array_equal(decode(image, "cam"), sent)
    assert str(image).startswith("a PNG of uint8 (5, 7")


def test_a_memoryview_of_a_message_is_read_as_well_and_channels_may_come_first() -> None:
    sent = pixels((5, 7, 3))
    image = EncodedImage(memoryview(bytearray(saved(sent))), "png")
    spec = PolicySpec("cam", {"cam": ImageSpec(layouts=("CHW",))}, None)
    valid = spec.validate({"cam": image})
    (found,) = decode_images(valid.observation).values()
    assert np.array_equal(found, sent.transpose(2, 0, 1))
    assert image.pixels == 35


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (headed(colours=3), "a PNG with a palette; save it as RGB"),
        (headed(colours=4), "a gray PNG with transparency; save it as RGB"),
        (headed(colours=9), "a PNG whose header is broken"),
        (headed(bits=16), "a PNG of 16 bits; save it with 8 bits"),
        (headed(width=0), "a PNG of 4 x 0 pixels"),
        (headed(height=1 << 31), "a PNG of 2147483648 x 4 pixels"),
        (headed(4, 4, 8, 2, 1, 0, 0), "a PNG whose header is broken"),
        (headed(4, 4, 8, 2, 0, 0, 2), "a PNG whose header is broken"),
        (headed()[:20], "a PNG that ends in its header"),
        (SIGNATURE + chunk(b"IDAT", bytes(13)), "a PNG whose header is broken"),
        (b"\xff\xd8\xff\xe0", "a JPEG"),
        (b"GIF89a", "a GIF"),
        (b"\x89PNG", "bytes that begin with 89 50 4e 47"),
        (b"", "no bytes"),
    ],
)
def test_what_is_no_such_png_is_told_by_what_it_is(data: bytes, got: str) -> None:
    with pytest.raises(BadObservation) as caught:
        EncodedImage(data, "png").check("cam/left")
    assert str(caught.value).startswith(f"cam/left: expected a PNG of 8 bits, in colour or gray, got {got}")


def test_a_header_that_asks_for_gigabytes_is_refused_before_anything_is_decoded() -> None:
    message = shared_path("design", "golden_more", "unsafe", "vla_eval_png_bomb_header.bin").read_bytes()
    data = msgpack.unpackb(message)["payload"]["images"]["a"]["data"]
    assert read_png_header(data) == (65536, 65536, 3)
    with pytest.raises(BadObservation, match="at most 8192 pixels a side"):
        check_images({"a": EncodedImage(data, "png")}, "", DEFAULT_LIMITS)
    images = [EncodedImage(headed(1000, 1000, 8, 6), "png").check("") for _ in range(3)]
    with pytest.raises(BadObservation, match="encoded pictures of at most 2 million pixels"):
        check_together({"images": images}, WireLimits(max_image_mpixels=2))


def test_the_decoder_gets_nothing_but_the_pixels() -> None:
    plain = saved(pixels((5, 7, 3)))
    bomb = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 20)))
    with_more = plain[:33] + bomb + chunk(b"acTL", bytes(8)) + plain[33:] + b"behind the end"
    assert pixels_alone(with_more) == plain
    assert np.array_equal(decode(EncodedImage(with_more, "png").check(""), ""), pixels((5, 7, 3)))


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (headed() + chunk(b"IDAT", b"") * 100, "a PNG in too many pieces"),
        (headed() + struct.pack(">I4s", 1000, b"IDAT") + bytes(10), "a PNG that is cut off"),
    ],
)
def test_a_png_of_many_pieces_or_half_of_one_is_refused(data: bytes, got: str) -> None:
    with pytest.raises(NotTakenError, match=got):
        pixels_alone(data)
    import_or_skip("PIL")
    with pytest.raises(BadObservation, match=f"got one that is broken: {got}"):
        decode(EncodedImage(data, "png").check(""), "")


def test_pixels_that_are_broken_or_missing_are_refused() -> None:
    good = saved(pixels((40, 40, 3)))
    for data in (good[:60] + b"\0" * 20 + good[80:], headed() + chunk(b"IEND", b""), headed()):
        with pytest.raises(BadObservation, match="one that is broken"):
            decode(EncodedImage(data, "png").check("cam"), "cam")
