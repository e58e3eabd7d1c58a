"""The tensors of a torch file: within their storages, bounded together, of numbers alone."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.tensors import StateDict
from tests.policies.frameworks import import_or_skip


def pth(
    *tensors: tuple[str, tuple[int, ...], tuple[int, ...], int], kind: str = "FloatStorage", count: int = 6
) -> bytes:
    """A file of one storage and tensors of it: name, shape, stride, offset."""
    opcodes = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for name, shape, stride, offset in tensors:
        opcodes += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("]
        opcodes += [text("storage"), b"ctorch\n%s\n" % kind.encode(), text("0"), text("cpu"), whole(count), b"tQ"]
        opcodes += [whole(offset), sizes(shape), sizes(stride), b"\x89ccollections\nOrderedDict\n)RtR"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", b"".join([*opcodes, b"u."]))
        archive.writestr("archive/data/0", np.arange(6, dtype="<f4").tobytes())
        archive.writestr("archive/byteorder", b"little")
    return packed.getvalue()


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def whole(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def test_tensors_are_views_with_their_strides() -> None:
    found = StateDict(pth(("a", (2, 3), (3, 1), 0)), "f")
    np.testing.assert_array_equal(found.read("a"), [[0, 1, 2], [3, 4, 5]])
    turned = StateDict(pth(("a", (2, 2), (1, 2), 1)), "f").read("a")
    np.testing.assert_array_equal(turned, [[1, 3], [2, 4]])
    assert not turned.flags.writeable


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((2,), (1 << 40,), 0),
        ((1 << 30,), (0,), 0),  # it lies within its storage, and is larger than that
        ((3, 3), (1, 1), 0),
        ((0,), (1,), 0),
        ((1,), (1,), 6),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(shape: Any, stride: Any, offset: int) -> None:
    found = StateDict(pth(("a", shape, stride, offset)), "f")
    with pytest.raises(ConfigError, match="f: a: expected a tensor within its storage of 6 numbers, got float32"):
        found.read("a")


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ((("a", (2, 3), (3,), 0),), "as many strides as sizes"),
        ((("a", (2,), (-1,), 0),), "a whole number from 0"),
        ((("a", (2,), (1,), -1),), "a whole number from 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tensors: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        StateDict(pth(*tensors), "f")


def test_a_storage_of_another_size_than_its_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 4000000 bytes in data/0, got 24"):
        StateDict(pth(("a", (2,), (1,), 0), count=1_000_000), "f").read("a")


def test_a_dtype_that_numpy_has_not_is_refused_where_it_is_read() -> None:
    found = StateDict(pth(("a", (2,), (1,), 0), kind="BFloat16Storage"), "f")
    with pytest.raises(ConfigError, match="expected float32 numbers, got BFloat16Storage"):
        found.read("a")


def test_all_that_is_read_is_bounded_by_the_file() -> None:
    content = pth(("a", (6,), (1,), 0))
    found = StateDict(content, "f")
    with pytest.raises(ConfigError, match="f: a: expected a storage for each tensor, got many tensors of one"):
        [found.read("a") for _ in range(len(content))]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_what_torch_saves_is_read(dtype: str) -> None:
    torch = import_or_skip("torch")
    values = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    file = io.BytesIO()
    torch.save({"a": values, "t": values.T, "part": values[1:, 2:]}, file)
    found = StateDict(file.getvalue(), "f")
    np.testing.assert_array_equal(found.read("a"), values.numpy())
    np.testing.assert_array_equal(found.read("part"), values[1:, 2:].numpy())


def test_the_format_before_torch_1_6_is_told() -> None:
    with pytest.raises(ConfigError, match="f: expected a zip archive"):
        StateDict(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "f")
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("weights", b"")
    with pytest.raises(ConfigError, match=r"torch 1\.6 and later write"):
        StateDict(other.getvalue(), "f")
