"""--image: how a camera's picture becomes a model's input."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.pictures import Picture, check_pictures, native_image, read_pictures


def test_a_rule_says_the_order_of_axes_and_the_divisor() -> None:
    assert read_pictures(None) == {}
    found = read_pictures("image=uint8:HWC/255, wrist=uint8:CHW")
    assert found == {"image": Picture("HWC", 255.0), "wrist": Picture("CHW", 1.0)}


@pytest.mark.parametrize(
    "text", ["", "image", "image=HWC", "image=uint8:HW", "image=uint8:HWC/0", "image=float:HWC/255"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^image: expected KEY=uint8:HWC/255, by commas, got"):
        read_pictures(text)


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5, 3)])
def test_pictures_come_out_in_the_models_order_and_scale(layout: str, shape: tuple[int, ...]) -> None:
    hwc = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    sent = hwc if layout == "HWC" else hwc.transpose(0, 3, 1, 2)
    picture = Picture(layout, 255.0)
    found = picture.convert(sent, shape, "float32")
    wanted = (hwc if shape[-1] == 3 else hwc.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
    assert str(picture.spec("x", shape)) == f"uint8 image {layout}, 4 x 5"


def test_what_has_no_three_channels_is_no_image() -> None:
    with pytest.raises(ConfigError, match="--image: x: expected an input of 3 channels, got one of the shape"):
        Picture("HWC", 1.0).spec("x", (4, 5))
    with pytest.raises(ConfigError, match="--image: expected one of the model's inputs, state, got 'image'"):
        check_pictures({"image": None}, ["state"])


def test_only_bytes_with_three_channels_are_an_image_by_themselves() -> None:
    assert str(native_image((3, 4, 5), "uint8", "")) == "uint8 image CHW, 4 x 5"
    assert str(native_image((4, 5, 3), "uint8", "")) == "uint8 image HWC, 4 x 5"
    assert native_image((3, 4, 5), "float32", "") is None
    assert native_image((2, 4, 5), "uint8", "") is None
