"""Camera images to patches: bit-equal to the original's, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation
from policyserve.policies.wall_x.images import image_patches, read_image, resize_image
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import pixel_values_of
from tests.policies.wall_x.golden import FAST_CASES, FLOW_CASES, facts, tensors

import_or_skip("PIL.Image")

# Of preprocess_public: what the original resizes; those that it misreads or wraps around are refused here.
TAKEN = (0, 1, 2, 3, 4, 8, 9, 14, 18, 19)
AMBIGUOUS = 13
REFUSED = {5: "floats in 0 … 1", 6: "floats in 0 … 1", 7: "an image of uint8", 10: "3 channels", 11: "3 channels"} | {
    12: "RGBA",
    15: "at most 200 times",
    17: "2 pixels",
    20: "2 pixels",
}


def prepared(image: Array) -> tuple[Array, Array]:
    resized = resize_image(read_image(image, "front_view"), "front_view")
    return resized, pixel_values_of(image_patches(resized)[0])


@pytest.mark.parametrize("index", TAKEN)
def test_an_image_is_resized_and_cut_as_the_original_does_to_the_bit(index: int) -> None:
    arrays, entry = tensors("preprocess_public"), facts("preprocess_public")["entries"][index]
    picture = read_image(arrays[f"raw_{index}"], "front_view")
    np.testing.assert_array_equal(picture, arrays[f"pil_{index}"])
    resized = resize_image(picture, "front_view")
    np.testing.assert_array_equal(resized, arrays[f"resized_{index}"])
    patches, grid = image_patches(resized)
    assert [1, *grid] == entry["grid_thw"]
    assert patches.dtype == np.uint8
    np.testing.assert_array_equal(pixel_values_of(patches[arrays[f"rows_idx_{index}"]]), arrays[f"rows_{index}"])


def test_an_image_that_can_be_both_layouts_is_refused_unless_its_layout_is_told() -> None:
    arrays = tensors("preprocess_public")
    raw = arrays[f"raw_{AMBIGUOUS}"]
    with pytest.raises(BadObservation, match=r"front_view: .*either HWC or CHW.*image_layout"):
        read_image(raw, "front_view")
    np.testing.assert_array_equal(read_image(raw, "front_view", "CHW"), arrays[f"pil_{AMBIGUOUS}"])
    assert read_image(raw, "front_view", "HWC").shape == (3, 64, 3)


@pytest.mark.parametrize("index", REFUSED)
def test_what_the_original_refuses_or_misreads_is_refused(index: int) -> None:
    with pytest.raises(BadObservation, match=f"front_view: .*{REFUSED[index]}"):
        prepared(tensors("preprocess_public")[f"raw_{index}"])


@pytest.mark.parametrize("name", [*FLOW_CASES, *FAST_CASES])
def test_a_golden_cases_cameras_become_the_same_patches(name: str) -> None:
    arrays, case = tensors(name), facts(name)
    pieces = []
    for place, camera in enumerate(case["cams"]):
        resized, patches = prepared(arrays[f"obs/{camera}"])
        if f"pre/resized_{place}" in arrays:
            np.testing.assert_array_equal(resized, arrays[f"pre/resized_{place}"])
        pieces.append(patches)
    patches = np.concatenate(pieces)
    if "pre/pixel_values" in arrays:
        np.testing.assert_array_equal(patches, arrays["pre/pixel_values"])
    else:
        np.testing.assert_array_equal(patches[arrays["pre/pixel_values_row_idx"]], arrays["pre/pixel_values_rows"])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((8, 8, 3), np.nan, np.float32), "NaN"),
        (np.full((8, 8, 3), -0.1, np.float32), "-0.1 … -0.1"),
        (np.full((8, 8, 3), 1.001), "1.001"),
        (np.full((8, 8, 3), np.inf, np.float16), "inf"),
        (np.zeros((8, 8, 4), np.uint8), "RGBA"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.zeros((1, 1, 3), np.uint8), "2 pixels"),
        (np.zeros((1, 5000, 3), np.uint8), "2 pixels"),
        (np.zeros((2, 5000, 3), np.uint8), "at most 200 times"),
        (np.zeros((28, 5500, 3), np.uint8), "after the first resize"),
        (np.zeros((2, 8, 8, 3), np.uint8), "axes"),
        (np.zeros(8, np.uint8), "axes"),
        ([[0]], "got list"),
    ],
)
def test_a_bad_image_is_refused_with_its_cameras_path(image: Array, reason: str) -> None:
    with pytest.raises(BadObservation, match=f"wrist: .*{reason}") as refused:
        resize_image(read_image(image, "wrist"), "wrist")
    assert refused.value.path == "wrist"


def test_gray_and_one_leading_axis_are_taken() -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert prepared(gray)[0].shape == (252, 252)
    assert prepared(np.zeros((1, 3, 8, 9), np.uint8))[0].shape == (224, 252, 3)


@pytest.mark.parametrize(
    ("height", "width", "wanted"),
    [(480, 640, (476, 644)), (16, 16, (56, 56)), (5000, 5000, (3556, 3556)), (20, 60, (56, 112))],
)
def test_without_the_first_resize_the_area_stays_between_the_models_bounds(
    height: int, width: int, wanted: tuple[int, int]
) -> None:
    resized = resize_image(np.zeros((height, width), np.uint8), "front_view", long_side_256=False)
    assert resized.shape == wanted
    with pytest.raises(BadObservation, match="at most 200 times"):
        resize_image(np.zeros((2, 500), np.uint8), "front_view", long_side_256=False)
