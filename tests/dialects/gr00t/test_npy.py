"""Arrays as .npy bytes: what NumPy writes is read, what it would evaluate or unpickle is not."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import WireError
from policyserve.dialects.gr00t.npy import npy_bytes, read_npy


def saved(array: Any, **options: Any) -> bytes:
    written = BytesIO()
    np.save(written, array, **options)
    return written.getvalue()


def headed(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    np.arange(6, dtype=">f8").reshape(3, 2),
    np.array(2.5),
    np.zeros((0, 3), np.int16),
    np.array([True, False]),
    np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    np.arange(24, dtype=np.int64).reshape(2, 3, 4).transpose(2, 1, 0),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_what_numpy_saves_is_read_to_the_same_values(array: Any) -> None:
    for data in (saved(array), memoryview(bytearray(saved(array)))):
        read = read_npy(data, "x")
        assert read.dtype == array.dtype.newbyteorder("=")
        assert read.shape == array.shape
        assert np.array_equal(read, array)
        assert read.flags.writeable
        assert read.flags.aligned
        assert read.flags.c_contiguous


@pytest.mark.parametrize("array", ARRAYS[:6], ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_an_array_is_written_as_numpy_saves_it(array: Any) -> None:
    assert npy_bytes(array.dtype.str, array.shape, array.tobytes()) == saved(array)


def test_pictures_in_a_writable_message_are_views_of_it() -> None:
    message = bytearray(saved(ARRAYS[0]))
    read = read_npy(memoryview(message), "x")
    message[-1] = 77
    assert read[-1, -1, -1] == 77


F4 = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
BAD = {
    "nothing": b"",
    "no magic": b"NUMPY" + bytes(100),
    "magic alone": b"\x93NUMPY\x01\x00",
    "version 2": b"\x93NUMPY\x02\x00" + bytes(100),
    "a header longer than the message": b"\x93NUMPY\x01\x00\xff\xff" + F4,
    "no header": headed(b""),
    "a call in the shape": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }"),
    "a call for a header": headed(b"print('ran')"),
    "another key": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1, }", bytes(8)),
    "keys in another order": headed(b"{'shape': (2,), 'descr': '<f4', 'fortran_order': False, }", bytes(8)),
    "objects": headed(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    "texts": headed(b"{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }", bytes(16)),
    "void": headed(b"{'descr': '|V8', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    "complex": headed(b"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    "dates": headed(b"{'descr': '<M8', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    "fields": headed(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", bytes(4)),
    "too few bytes": headed(F4, bytes(7)),
    "too many bytes": headed(F4, bytes(9)),
    "a huge size": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999999,), }"),
    "a size of many digits": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 400 + b",), }"),
    "a negative size": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
    "nothing and a huge size": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 999999999999999), }"),
    "a hundred dimensions": headed(
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1, " * 100 + b"), }", bytes(4)
    ),
    "sizes without commas": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1 2), }", bytes(8)),
    "commas alone": headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (,,), }", bytes(4)),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_anything_else_is_refused_with_its_path(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        read_npy(data, "state/x")
    assert caught.value.path == "state/x"


def test_an_object_array_is_never_unpickled() -> None:
    with pytest.raises(WireError, match="dtype"):
        read_npy(saved(np.array([print], dtype=object), allow_pickle=True), "x")
