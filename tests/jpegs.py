"""JPEGs of all kinds for tests, made by Pillow or by hand."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from tests.policies.frameworks import import_or_skip


def picture(height: int = 48, width: int = 64, seed: int = 0) -> Array:
    """A smooth picture with an edge, (height, width, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    made = np.stack([rows * 2 + seed, columns * 2, (rows > height // 2) * 200], -1)
    return np.clip(made, 0, 255).astype(np.uint8)


def saved(array: Array, form: str = "JPEG", **options: Any) -> bytes:
    """A picture as Pillow saves it."""
    image = import_or_skip("PIL.Image")
    with BytesIO() as file:
        image.fromarray(array, options.pop("mode", None)).save(file, form, **options)
        return file.getvalue()


def cmyk(height: int = 48, width: int = 64) -> bytes:
    """A JPEG of four colours."""
    image = import_or_skip("PIL.Image")
    with BytesIO() as file:
        image.new("CMYK", (width, height)).save(file, "JPEG")
        return file.getvalue()


def claiming(data: bytes, height: int, width: int) -> bytes:
    """The same JPEG with other sides in its header."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]
