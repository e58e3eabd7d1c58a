"""Reading *.safetensors files: the header alone, small arrays with NumPy, or tensors through the safetensors package.

A file is a header's length in 8 bytes, the header in JSON, and the tensors' bytes. The header is read without any
package, so that a command can tell what is wrong with a checkpoint before it loads a framework or opens a port.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.files import reading

# What a weight may be, as torch names it; integers and floats of 8 bits come with scales that nobody here applies.
FLOATS: Mapping[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
_NUMPY: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_LENGTH = 8  # bytes of the header's length
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors package has it
_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not read yet. start, end: its bytes' place behind the header; 0, 0 where nobody asked."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it: `BF16`, `F32`."""
    start: int = 0
    end: int = 0


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name, without reading them and without a package.

    Raises ConfigError for a file that is missing, cut short, a pointer of Git LFS, or whose header is not true.
    """
    with reading(file, "a safetensors file"):
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(_LENGTH)
            if head + stream.read(len(_LFS) - _LENGTH) == _LFS:
                raise ConfigError(f"{file}: expected weights, got a pointer of Git LFS; fetch them: git lfs pull")
            length = int.from_bytes(head, "little")
            if len(head) < _LENGTH or length > min(size - _LENGTH, _LONGEST_HEADER):
                raise ConfigError(f"{file}: not a whole safetensors file ({size} bytes); fetch it again")
            stream.seek(_LENGTH)
            header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ConfigError(f"{file}: expected a safetensors file, got a header that is no object")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    start = _LENGTH + length
    return {name: _stored(file, name, entry, start, size) for name, entry in entries.items()}


def _stored(file: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    with reading(file, f"a safetensors file whose {name!r:.80} has dtype, shape and place"):
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        are_whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        if not are_whole or dtype not in _BITS or end - begin != prod(shape) * _BITS[dtype] // 8:
            raise ConfigError(f"{file}: {name!r:.80}: expected a tensor, got dtype, shape and bytes that do not agree")
        if start + end > size:
            raise ConfigError(f"{file}: not a whole safetensors file ({size} bytes); fetch it again")
        return StoredTensor(file, name, tuple(shape), dtype, start + begin, start + end)


def read_array(stored: StoredTensor) -> Array:
    """One tensor that read_header() found, as NumPy has it; raises ConfigError for a dtype that NumPy has not."""
    if stored.dtype not in _NUMPY:
        raise ConfigError(f"{stored.file}: {stored.name}: expected {', '.join(_NUMPY)}, got {stored.dtype}")
    with reading(stored.file, "a safetensors file"), stored.file.open("rb") as stream:
        stream.seek(stored.start)
        values = np.frombuffer(stream.read(stored.end - stored.start), _NUMPY[stored.dtype])
        return values.reshape(stored.shape).copy()


def list_tensors(file: Path) -> Iterator[StoredTensor]:
    """The tensors of a file, as the safetensors package lists them; raises ConfigError as opened() does."""
    with opened(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118  (not a mapping)
            header = tensors.get_slice(name)
            yield StoredTensor(file, name, tuple(header.get_shape()), header.get_dtype())


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The file in the safetensors package, which gives torch's tensors; raises ConfigError for what is no such file."""
    from safetensors import SafetensorError, safe_open

    with reading(file, "a safetensors file"):
        try:
            with safe_open(file, framework="pt", device="cpu") as tensors:
                yield tensors
        except (SafetensorError, OSError) as error:
            size = file.stat().st_size if file.exists() else 0
            told = f"not a whole safetensors file ({size} bytes: {error}); fetch it again"
            raise ConfigError(f"{file}: {told}") from error


def size_told(count: int) -> str:
    """`8.4 GB`, `12.5 MB`, `340 kB`."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
