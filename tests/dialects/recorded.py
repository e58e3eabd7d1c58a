"""Messages that other people's programs wrote, with what they hold: `shared/design/golden_more`."""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.encoded_images import EncodedImage
from policyserve.transforms.jpeg import decode_images
from tests.shared import shared_path


class Recorded(NamedTuple):
    """An array of which the hash is known."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    sha256: str


def message(family: str, name: str) -> bytes | str:
    """A recorded message; a text is a str."""
    data = shared_path("design", "golden_more", family, f"{name}.bin").read_bytes()
    return data.decode() if "text" in _index(family)[f"{name}.bin"]["transport"] else data


def content(family: str, name: str) -> Any:
    """What it holds: maps, lists, numbers, texts, and arrays; a Recorded one where only its hash is told."""
    return _with_arrays(_index(family)[f"{name}.bin"]["content"])


@lru_cache
def _index(family: str) -> dict[str, Any]:
    told = json.loads(shared_path("design", "golden_more", family, "index.json").read_text())
    return {frame["file"]: frame for frame in told["frames"]}


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        array = value.get("array")
        if isinstance(array, dict) and "bytes_sha256" in array:
            if "values" not in array:
                return Recorded(np.dtype(array["dtype"]), tuple(array["shape"]), array["bytes_sha256"])
            return np.array(array["values"], array["dtype"]).reshape(array["shape"])
        if set(value) == {"image"}:
            return np.array(value["image"]["pixels"], value["image"]["pixels_dtype"])
        if set(value) == {"scalar"}:
            return np.dtype(value["scalar"]["dtype"]).type(value["scalar"]["value"])
        return {key: _with_arrays(inner) for key, inner in value.items()}
    return [_with_arrays(inner) for inner in value] if isinstance(value, list) else value


def assert_same(read: Any, expected: Any) -> None:
    """Assert that two values are the same, arrays by dtype and shape, too; an encoded picture is decoded."""
    if isinstance(read, EncodedImage):
        read = decode_images(read)
    if isinstance(expected, dict):
        assert list(read) == list(expected)
        for key, value in expected.items():
            assert_same(read[key], value)
    elif isinstance(expected, Recorded):
        assert (read.dtype, read.shape, sha256(read.tobytes()).hexdigest()) == expected
    elif isinstance(expected, list):
        assert len(read) == len(expected)
        for one, other in zip(read, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert (read.dtype, read.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(read, expected)
    else:
        assert read == expected
