"""What a JPEG's header says, and what is no JPEG that is taken, without decoding anything."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.encoded_images import EncodedImage, check_images, check_together
from policyserve.core.errors import BadObservation
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from tests.jpegs import claiming, cmyk, picture, saved

GOOD = saved(picture())


def refusal(data: bytes, form: str = "jpeg") -> str:
    with pytest.raises(BadObservation) as caught:
        EncodedImage(data, form).check("cam/left")
    assert caught.value.path == "cam/left"
    assert str(caught.value).startswith("cam/left: expected a baseline JPEG, in colour or gray, got ")
    return str(caught.value).partition(", got ")[2]


def test_a_jpeg_has_the_shape_that_it_decodes_to() -> None:
    image = EncodedImage(memoryview(GOOD)).check("image")
    assert (image.shape, image.size, image.nbytes) == ((48, 64, 3), 9216, 9216)
    assert EncodedImage(saved(picture()[..., 0])).check("gray").shape == (48, 64)
    assert str(image) == "a JPEG of uint8 (48, 64, 3)"


def test_what_is_no_such_jpeg_is_told_by_what_it_is() -> None:
    assert refusal(saved(picture(), "PNG")) == "a PNG"
    with pytest.raises(BadObservation, match="expected a baseline JPEG or a PNG, got the format 'webp'"):
        EncodedImage(GOOD, "webp").check("")
    assert refusal(b"") == "no bytes"
    assert refusal(b"hello") == "bytes that begin with 68 65 6c 6c"
    assert refusal(saved(picture(), progressive=True)) == "a progressive JPEG; save it as a baseline JPEG"
    assert refusal(cmyk()) == "a JPEG of 4 colours (CMYK); save it as RGB"
    assert refusal(GOOD[:100]) == "a JPEG that ends in its header"
    assert refusal(claiming(GOOD, 0, 64)) == "a JPEG of 0 x 64 pixels"
    assert refusal(b"\xff\xd8\x00\x00") == "a JPEG with 00 00 where a marker belongs"
    assert refusal(b"\xff\xd8" + b"\xff" * 10_000) == "a JPEG without a picture in its first 40 markers"
    assert refusal(b"\xff\xd8\xff\xda\x00\x03\x01") == "a JPEG without a size before its pixels"


def test_a_jpeg_of_several_scans_is_refused_since_each_costs_a_whole_picture() -> None:
    scan = GOOD.index(b"\xff\xda")
    assert refusal(GOOD[: scan + 4] + b"\x01" + GOOD[scan + 5 :]).startswith("a JPEG of several scans")


@pytest.mark.parametrize("sides", [(65535, 65535), (8193, 10), (8000, 8000)])
def test_a_header_beyond_the_limits_is_refused_before_anything_is_decoded(sides: tuple[int, int]) -> None:
    image = EncodedImage(claiming(GOOD, *sides))
    spec = PolicySpec("any size", {"image": ImageSpec()}, None)
    with pytest.raises(BadObservation, match="image: expected an image of at most"):
        spec.validate({"image": image})
    with pytest.raises(BadObservation, match="a/b: expected an image of at most"):
        check_images({"a": {"b": image}}, "", DEFAULT_LIMITS)


def test_many_jpegs_may_not_become_larger_together_than_one_may() -> None:
    images = [EncodedImage(claiming(GOOD, 1000, 1000)).check("") for _ in range(3)]
    assert check_together({"a": images[0], "b": [images[1]]}, WireLimits(max_image_mpixels=2))
    with pytest.raises(BadObservation, match="expected encoded pictures of at most 2 million pixels in one message"):
        check_together({"a": images[0], "b": {"c": images[1:]}}, WireLimits(max_image_mpixels=2))
    assert not check_together({"a": [1.0] * 1000, "b": {"c": "text"}}, DEFAULT_LIMITS)


def test_a_spec_takes_a_jpeg_where_it_takes_such_a_picture_and_nowhere_else() -> None:
    def told(leaf: object, data: bytes = GOOD) -> str:
        with pytest.raises(BadObservation) as caught:
            PolicySpec("p", {"x": leaf}, None).validate({"x": EncodedImage(data)})
        return str(caught.value)

    assert PolicySpec("p", {"x": ImageSpec(48, 64)}, None).validate({"x": EncodedImage(GOOD)}).observation["x"]
    assert told(ImageSpec(224, 224)) == (
        "x: expected uint8 image HWC, 224 x 224, got a JPEG of uint8 (48, 64, 3), which looks like HWC"
    )
    assert told(ImageSpec(dtypes=("float",))).startswith("x: expected float image HWC, got a JPEG of uint8")
    assert "gray, which looks like a gray HW image" in told(ImageSpec(48, 64), saved(picture()[..., 0]))
    assert told(ArraySpec((48, 64, 3), "uint8")) == "x: expected uint8 (48, 64, 3), got an encoded image"
    first = EncodedImage(GOOD)
    PolicySpec("p", {"x": ImageSpec(48, 64, ("CHW",))}, None).validate({"x": first})
    assert (first.shape, first.is_channels_first) == ((3, 48, 64), True)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"\xff\xd8\xff" + data))
def test_any_bytes_have_a_shape_or_a_refusal(data: bytes) -> None:
    with suppress(BadObservation):
        assert len(EncodedImage(data).check("x").shape) in (2, 3)
