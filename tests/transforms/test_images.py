"""Resizing, against numbers worked out by hand; tests/policies compares it with JAX's own."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.transforms import ResizeImageInput


def grey(rows: list[list[float]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.repeat(np.array(rows, np.uint8)[:, :, None], 3, axis=2)


def test_an_image_of_the_right_size_only_becomes_float32() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    resized = ResizeImageInput(5, 7)(image)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized, image)


def test_growing_interpolates_between_pixel_centres() -> None:
    resized = ResizeImageInput(1, 4)(grey([[0, 100]]))
    np.testing.assert_allclose(resized[0, :, 0], [0, 25, 75, 100])


def test_shrinking_averages_so_that_nothing_is_skipped() -> None:
    # New centres lie at 0.5 and 2.5; a triangle of half-width 2 weighs the pixels 3/4, 3/4, 1/4, outside ones dropped.
    resized = ResizeImageInput(1, 2)(grey([[70, 0, 0, 140]]))
    np.testing.assert_allclose(resized[0, :, 0], [30, 60], rtol=1e-6)


def test_an_even_image_stays_even_at_any_size() -> None:
    for height, width in ((1, 1), (3, 50), (64, 64), (100, 7)):
        resized = ResizeImageInput(height, width)(np.full((40, 30, 3), 200, np.uint8))
        assert resized.shape == (height, width, 3)
        np.testing.assert_allclose(resized, 200, rtol=1e-6)


@pytest.mark.parametrize("batch", [(), (0,), (3,), (2, 3)])
def test_axes_in_front_are_a_batch(batch: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (*batch, 12, 10, 3), dtype=np.uint8)
    resized = ResizeImageInput(5, 20)(images)
    assert resized.shape == (*batch, 5, 20, 3)
    for place in np.ndindex(*batch):
        np.testing.assert_allclose(resized[place], ResizeImageInput(5, 20)(images[place]), rtol=1e-5, atol=1e-4)


def test_with_a_key_that_entry_of_a_map_is_resized() -> None:
    observation = {"image": np.zeros((4, 4, 3), np.uint8), "state": np.zeros(2)}
    resized = ResizeImageInput(8, 8, key="image")(observation)
    assert resized["image"].shape == (8, 8, 3)
    assert resized["state"] is observation["state"]
