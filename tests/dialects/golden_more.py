"""Messages that the original encoders of more families wrote, and what their index says is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.encoded_images import EncodedImage
from policyserve.transforms.jpeg import decode_images
from tests.shared import shared_path

FOLDER = ("design", "golden_more")


def message(family: str, name: str) -> bytes:
    """The bytes of one message, `hello` of hello.bin."""
    return shared_path(*FOLDER, family, f"{name}.bin").read_bytes()


def as_a_server_gets(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def content(family: str, name: str) -> Any:
    """What is in it: maps, texts, numbers, and arrays of the index's values."""
    index = json.loads(shared_path(*FOLDER, family, "index.json").read_text())
    (found,) = [frame["content"] for frame in index["frames"] if frame["file"] == f"{name}.bin"]
    return _values(found)


def _values(told: Any) -> Any:
    if isinstance(told, Mapping):
        if set(told) == {"array"}:
            return np.array(told["array"]["values"], np.dtype(told["array"]["dtype"])).reshape(told["array"]["shape"])
        if set(told) == {"image"}:
            return np.array(told["image"]["pixels"], np.uint8)
        if set(told) == {"scalar"}:
            return np.dtype(told["scalar"]["dtype"]).type(told["scalar"]["value"])
        return {key: _values(value) for key, value in told.items()}
    return [_values(value) for value in told] if isinstance(told, list) else told


def assert_same(read: Any, expected: Any) -> None:
    """Equal to the value, the dtype and the order of keys; encoded pictures are decoded."""
    if isinstance(read, EncodedImage):
        read = decode_images(read)
    if isinstance(expected, Mapping):
        assert list(read) == list(expected)
        for key, value in expected.items():
            assert_same(read[key], value)
    elif isinstance(expected, (np.ndarray, np.generic)):
        found: Array = np.asarray(read)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
    else:
        assert read == expected
        assert type(read) is type(expected)
