"""Pictures to JPEGs and back; whatever is broken is told by its path, and nothing else happens."""

from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import BadObservation, MissingDependency
from policyserve.transforms import jpeg
from tests.jpegs import claiming, picture, saved
from tests.policies.frameworks import import_or_skip

import_or_skip("simplejpeg")

GOOD = bytes(jpeg.encode(picture(), 90).data)


def decoded(data: bytes) -> np.ndarray:
    return jpeg.decode(EncodedImage(data).check("cam"), "cam")


def test_a_picture_comes_back_nearly_as_it_was() -> None:
    back = decoded(GOOD)
    assert (back.shape, back.dtype) == ((48, 64, 3), np.dtype(np.uint8))
    assert np.abs(back.astype(int) - picture()).mean() < 5
    assert back.flags.writeable
    assert len(jpeg.encode(picture(), 30).data) < len(GOOD)


def test_it_is_the_picture_that_other_decoders_see() -> None:
    image = import_or_skip("PIL.Image")
    from io import BytesIO

    np.testing.assert_allclose(decoded(GOOD).astype(int), np.asarray(image.open(BytesIO(GOOD))).astype(int), atol=2)


def test_a_picture_that_is_a_view_is_encoded_as_it_looks() -> None:
    turned = picture()[:, ::-1]
    np.testing.assert_array_equal(
        decoded(bytes(jpeg.encode(turned, 90).data)), decoded(bytes(jpeg.encode(turned.copy(), 90).data))
    )


def test_gray_and_channels_first_have_the_shape_that_was_told() -> None:
    assert decoded(saved(picture()[..., 0])).shape == (48, 64)
    image = EncodedImage(GOOD).check("cam")
    image.put_channels_first()
    first = jpeg.decode(image, "cam")
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first.transpose(1, 2, 0), decoded(GOOD))


@pytest.mark.parametrize("data", [GOOD[:-40], GOOD[:-2], claiming(GOOD, 480, 640)])
def test_a_jpeg_that_ends_too_early_is_refused(data: bytes) -> None:
    with pytest.raises(
        BadObservation, match="cam: expected a baseline JPEG, in colour or gray, got one that is broken"
    ):
        decoded(data)


def test_images_are_decoded_wherever_they_stand() -> None:
    observation = {"a": {"b": EncodedImage(GOOD)}, "c": [EncodedImage(GOOD)], "state": np.zeros(3)}
    made = jpeg.decode_images(observation)
    np.testing.assert_array_equal(made["a"]["b"], decoded(GOOD))
    np.testing.assert_array_equal(made["c"][0], decoded(GOOD))
    assert made["state"] is observation["state"]
    without = {"a": {"b": np.zeros(3)}}
    assert jpeg.decode_images(without) is without
    with pytest.raises(BadObservation) as caught:
        jpeg.decode_images({"a": {"b": EncodedImage(GOOD[:-9])}})
    assert caught.value.path == "a/b"


def test_without_the_package_each_side_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    image = EncodedImage(GOOD).check("cam")
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    monkeypatch.setattr(jpeg, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"simplejpeg is not installed; run: pip install 'policyserve\[jpeg\]'"):
        jpeg.require()
    with pytest.raises(
        BadObservation, match=r"cam: expected an array: no JPEG can be decoded here.*policyserve\[jpeg\]"
    ):
        jpeg.decode(image, "cam")


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_mutated_jpeg_is_a_picture_of_the_told_shape_or_refused(data: st.DataObject) -> None:
    mutated = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        how = data.draw(st.sampled_from(("set", "cut", "insert")))
        if how == "set":
            mutated[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del mutated[place : place + data.draw(st.integers(1, 30))]
        else:
            mutated[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        mutated = mutated or bytearray(b"\xff")
    with suppress(BadObservation):
        image = EncodedImage(bytes(mutated)).check("cam")
        if image.size <= 1 << 20:  # larger ones are the limits' to refuse
            assert jpeg.decode(image, "cam").shape == image.shape
