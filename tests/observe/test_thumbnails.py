"""Pictures as a page shows them, from whatever a camera sent."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.core.leaf_specs import ImageSpec
from policyserve.observe.thumbnails import Cut, ThumbnailThread, cut_down, jpeg_of
from tests.policies.frameworks import import_or_skip

Image = import_or_skip("PIL.Image")
RED = np.array((200, 30, 40), np.uint8)
HWC = np.broadcast_to(RED, (48, 64, 3)).copy()
CHW = np.ascontiguousarray(HWC.transpose(2, 0, 1))


def shown(array: Array, leaf: ImageSpec | None = None) -> Array:
    """The picture that a page shows, (H, W, 3)."""
    cut = cut_down("camera", array, leaf)
    assert cut is not None
    return np.asarray(Image.open(io.BytesIO(jpeg_of(cut.pixels))).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("array", "leaf"),
    [
        (HWC, ImageSpec(48, 64)),
        (HWC, None),
        (CHW, ImageSpec(48, 64, ("CHW",))),
        (CHW, None),
        (HWC[None], ImageSpec(48, 64)),
        (HWC[None], ImageSpec(48, 64, ("1HWC",))),
        (CHW[None, None], ImageSpec(48, 64, ("1CHW",))),
        ((HWC / 255).astype(np.float32), ImageSpec(48, 64, dtypes=("float32",))),
        ((HWC / 127.5 - 1).astype(np.float64), ImageSpec(48, 64, dtypes=("float",))),
        (HWC.astype(np.float32), ImageSpec(48, 64, dtypes=("float",))),
        (np.concatenate([HWC, HWC[..., :1]], axis=-1), None),
    ],
    ids=lambda value: str(value) if isinstance(value, ImageSpec) else None,
)
def test_a_red_picture_is_shown_red_whatever_its_layout_and_dtype(array: Array, leaf: ImageSpec | None) -> None:
    picture = shown(array, leaf)
    assert picture.shape == (48, 64, 3)
    # The darkest of a picture of -1 … 1 tells that it is one; this one has such a channel.
    assert np.abs(picture.mean(axis=(0, 1)) - RED).max() < 6


def test_a_gray_picture_is_shown() -> None:
    assert shown(np.full((20, 30), 128, np.uint8), ImageSpec(20, 30, ("HW",))).mean() == pytest.approx(128, abs=2)


def test_a_large_picture_is_made_small_and_little_of_it_is_copied() -> None:
    camera = np.zeros((1080, 1920, 3), np.uint8)
    cut = cut_down("camera", camera)
    assert cut is not None
    assert cut.pixels.nbytes < 700_000
    assert not np.shares_memory(cut.pixels, camera)
    assert shown(camera).shape == (180, 320, 3)


@pytest.mark.parametrize("shape", [(7,), (4, 5), (0, 5, 3), (5, 6, 7), (1, 1, 1, 1, 1, 3)])
def test_what_is_no_picture_is_none(shape: tuple[int, ...]) -> None:
    assert cut_down("x", np.zeros(shape, np.uint8)) is None


def test_not_a_number_is_shown_as_something() -> None:
    assert jpeg_of(np.full((4, 4, 3), np.nan, np.float32))


def test_pictures_are_made_in_another_thread_and_bad_ones_left_out() -> None:
    thread, is_made = ThumbnailThread(), threading.Event()
    made: list[Any] = []

    def on_made(pictures: Any) -> None:
        made.extend(pictures)
        made.append(threading.current_thread())
        is_made.set()

    try:
        thread.make([Cut("good", HWC, HWC.shape), Cut("bad", np.array(["x"]), (1,))], on_made)
        assert is_made.wait(30)
    finally:
        thread.close()
    (cut, jpeg), where = made
    assert cut.path == "good"
    assert jpeg.startswith(b"\xff\xd8")
    assert where is not threading.main_thread()
