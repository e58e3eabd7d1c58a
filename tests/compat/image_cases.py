"""Images, and what openpi-client makes of them.

image_digests.json was written by this program in a virtual environment with openpi-client==0.1.2 (numpy<2, and
typing_extensions, which it forgets to ask for):

    python tests/compat/image_cases.py > tests/compat/image_digests.json
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

# Shape, height, width, method (PIL.Image.Resampling): tall, wide, exact, sizes that round, batches, two channels.
RESIZES: list[tuple[tuple[int, ...], int, int, int]] = [
    ((480, 640, 3), 224, 224, 2),
    ((640, 480, 3), 224, 224, 2),
    ((224, 224, 3), 224, 224, 2),
    ((256, 256, 3), 224, 224, 2),
    ((37, 53, 3), 224, 224, 2),
    ((53, 37, 3), 64, 97, 2),
    ((97, 211, 3), 31, 29, 2),
    ((3, 3, 3), 7, 5, 2),
    ((1, 1, 3), 4, 9, 2),
    ((2, 48, 64, 3), 32, 32, 2),
    ((2, 3, 20, 31, 3), 16, 24, 2),
    ((60, 80, 4), 32, 32, 2),
    ((60, 80, 2), 32, 32, 2),
    ((480, 640, 3), 224, 224, 0),
    ((480, 640, 3), 224, 224, 3),
    ((120, 90, 3), 200, 200, 1),
]
FLOAT_DTYPES = ("float16", "float32", "float64")


def picture(shape: tuple[int, ...]) -> Any:
    """Pixels that differ from their neighbours, always the same."""
    return (np.arange(np.prod(shape), dtype=np.uint64) * 2654435761 >> 7).astype(np.uint8).reshape(shape)


def ramp(dtype: str) -> Any:
    """Floats from 0 to 1, among them those that lie at a grey level's edge."""
    return np.linspace(0, 1, 3 * 255 + 1).astype(dtype).reshape(1, -1, 1).repeat(3, axis=2)


def digests(tools: Any) -> dict[str, str]:
    """The bytes that `tools` makes of every case, as name -> SHA-256 with dtype and shape in front."""
    found = {f"resize {case}": _digest(tools.resize_with_pad(picture(case[0]), *case[1:])) for case in RESIZES}
    return {**found, **{f"convert {dtype}": _digest(tools.convert_to_uint8(ramp(dtype))) for dtype in FLOAT_DTYPES}}


def _digest(array: Any) -> str:
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


if __name__ == "__main__":
    from importlib import import_module

    print(json.dumps(digests(import_module("openpi_client.image_tools")), indent=1))
