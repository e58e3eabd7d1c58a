"""The header of a safetensors file, read without a package, and what is refused of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.safetensors_files import list_tensors, read_array, read_header, size_told
from tests.policies.frameworks import import_or_skip


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start: int = 0, end: int = 12, shape: Any = (3,), dtype: str = "F32") -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        read_header(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_header_and_an_array_are_read(tmp_path: Path) -> None:
    values = np.array([1, 2, 3], np.float32)
    header = {"__metadata__": {"format": "pt"}, **entry()}
    (stored,) = read_header(write(tmp_path / "a.safetensors", header, values.tobytes())).values()
    assert (stored.name, stored.shape, stored.dtype) == ("x", (3,), "F32")
    np.testing.assert_array_equal(read_array(stored), values)


def test_the_package_lists_the_same(tmp_path: Path) -> None:
    import_or_skip("torch")
    save = import_or_skip("safetensors.numpy").save_file
    save({"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64)}, tmp_path / "a.safetensors")
    own = read_header(tmp_path / "a.safetensors")
    assert {one.name: (one.shape, one.dtype) for one in list_tensors(tmp_path / "a.safetensors")} == {
        name: (one.shape, one.dtype) for name, one in own.items()
    }


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (entry(), b"", None),
        (entry(end=11), b"\0" * 12, None),
        (entry(shape=[-3]), b"\0" * 12, None),
        (entry(shape=[1 << 80]), b"\0" * 12, None),
        (entry(shape=3), b"\0" * 12, None),
        (entry(dtype="F33"), b"\0" * 12, None),
        (entry(start=-12, end=0), b"\0" * 12, None),
        ({"x": 3}, b"", None),
        ([1], b"", None),
        ({}, b"", 1 << 60),
        ({}, b"", 1),
    ],
)
def test_a_header_that_is_not_true_is_refused(tmp_path: Path, header: Any, data: bytes, length: int | None) -> None:
    assert "a.safetensors" in refusal(write(tmp_path / "a.safetensors", header, data, length))


def test_what_is_no_such_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "No such file" in refusal(path)
    path.write_bytes(b"")
    assert "not a whole safetensors file (0 bytes)" in refusal(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert "a pointer of Git LFS; fetch them: git lfs pull" in refusal(path)


def test_an_array_of_a_dtype_that_numpy_has_not_is_refused(tmp_path: Path) -> None:
    header = entry(end=6, dtype="BF16")
    (stored,) = read_header(write(tmp_path / "a.safetensors", header, b"\0" * 6)).values()
    with pytest.raises(ConfigError, match="got BF16"):
        read_array(stored)


def test_sizes_are_told_in_their_unit() -> None:
    assert [size_told(size) for size in (340_000, 12_500_000, 8_400_000_000)] == ["340 kB", "12.5 MB", "8.4 GB"]
