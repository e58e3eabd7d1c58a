"""Small pictures of what a camera sent: cut down while the observation is there, made JPEG in a thread.

What must stay true: the event loop copies a few hundred kilobytes at most and compresses nothing; nobody is waited for.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.leaf_specs import ImageSpec, LeafSpec, sizes_match

_SIDE = 320  # pixels, of a thumbnail's longer side
_QUALITY = 80
_CHANNELS = (3, 4, 1)


class Cut(NamedTuple):
    """A picture that was cut down by leaving out rows and columns: (H, W) or (H, W, channels), a copy.

    shape: of what was sent.
    """

    path: str
    pixels: Array
    shape: tuple[int, ...]


class Thumbnail(NamedTuple):
    """A JPEG of a picture. number: counts a session's pictures up, so that a page knows a new one."""

    path: str
    jpeg: bytes
    shape: tuple[int, ...]
    number: int


def is_possible() -> bool:
    """Whether Pillow, which makes them, is installed (the extra `images`)."""
    return find_spec("PIL") is not None


def cut_down(path: str, array: Array, leaf: LeafSpec | None = None) -> Cut | None:
    """A picture's rows and columns that a thumbnail needs; None if it is no picture.

    leaf: what the policy's spec says of it; without one, whole numbers of 8 bits with an axis of colours pass. Of a
    client's batch it is the first picture.
    """
    layout = _layout_of_spec(array, leaf) if isinstance(leaf, ImageSpec) else _layout_guessed(array)
    if layout is None or 0 in array.shape:
        return None
    picture = array[(0,) * (array.ndim - len(layout))]
    picture = picture[tuple(0 if axis == "1" else slice(None) for axis in layout)]
    letters = layout.replace("1", "")
    picture = picture.transpose([letters.index(axis) for axis in "HWC" if axis in letters])
    step = max(1, max(picture.shape[:2]) // _SIDE)
    return Cut(path, picture[::step, ::step].copy(), array.shape)


def jpeg_of(pixels: Array) -> bytes:
    """A JPEG of (H, W) or (H, W, 1, 3 or 4) numbers, at most 320 pixels a side.

    Floats are 0 … 1, or -1 … 1 where one is below 0, or 0 … 255 where one is above 1.
    """
    from PIL import Image

    pixels = _as_uint8(pixels)
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((_SIDE, _SIDE))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=_QUALITY, subsampling=0)
    return written.getvalue()


class ThumbnailThread:
    """Makes thumbnails, one picture after the other. Call its methods in one thread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")

    def make(self, cuts: Sequence[Cut], on_made: Callable[[Sequence[tuple[Cut, bytes]]], None]) -> None:
        """Compress these; on_made is called in the thread. What cannot be made is left out."""
        self._threads.submit(lambda: on_made(_make_all(cuts)))

    def close(self) -> None:
        """Make no more; what is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _make_all(cuts: Sequence[Cut]) -> list[tuple[Cut, bytes]]:
    made: list[tuple[Cut, bytes]] = []
    for cut in cuts:
        try:
            made.append((cut, jpeg_of(cut.pixels)))
        except Exception:  # a stranger's numbers
            continue
    return made


def _layout_of_spec(array: Array, leaf: ImageSpec) -> str | None:
    sizes = {"H": leaf.height, "W": leaf.width, "C": 3, "1": 1}
    for layout in leaf.layouts:
        wanted = tuple(sizes[axis] for axis in layout)
        extra = array.ndim - len(layout)
        if extra in (0, 1) and sizes_match(array.shape[extra:], wanted):
            return layout
    return None


def _layout_guessed(array: Array) -> str | None:
    if array.dtype != np.uint8 or array.ndim < 3 or array.ndim > 5 or min(array.shape[-2:]) < 1:
        return None
    for channels in _CHANNELS:
        if array.shape[-1] == channels:
            return "HWC"
        if array.shape[-3] == channels:
            return "CHW"
    return None


def _as_uint8(pixels: Array) -> Array:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    values = np.nan_to_num(pixels.astype(np.float32), posinf=255.0, neginf=0.0)
    if pixels.dtype.kind not in "iu":
        if values.min() < 0:
            values = (values + 1) * 127.5
        elif values.max() <= 1:
            values = values * 255
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
