"""The leaves of a saved train state, one by one: no framework, no template, and only what is asked for.

state.eqx   NumPy .npy records (version 1.0) one after another, one per leaf in tree order, nothing around them.
orbax       a directory <step>/ whose key-value store holds zarr arrays leaf_0, leaf_1, … in the same order.

A header is read before its data, so that a file cannot make us allocate what nobody expected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError, MissingDependency


@dataclass(frozen=True)
class Header:
    """What a record holds."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)


class Records(Protocol):
    """The records of one checkpoint, numbered from 0. Errors are ConfigErrors that name path and record."""

    path: Path

    def header(self, index: int) -> Header | None:
        """Look at a record without its data; None if there are not that many."""
        ...

    def read(self, index: int) -> Array:
        """Read a record that header() has found, as a writable array."""
        ...


@contextmanager
def open_records(path: Path) -> Iterator[Records]:
    """Open a state.eqx file or an orbax step directory; raises ConfigError, MissingDependency for the latter."""
    if path.is_dir():
        yield OrbaxRecords(path)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        yield EqxRecords(path, file)


class EqxRecords:
    """A state.eqx file. Records behind those that are asked for are never looked at."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._found: list[tuple[Header, int, int]] = []  # header, where its record starts, where it ends

    def header(self, index: int) -> Header | None:
        while len(self._found) <= index:
            start = self._found[-1][2] if self._found else 0
            if start >= self._size:
                return None
            self._found.append(self._scan(start))
        return self._found[index][0]

    def read(self, index: int) -> Array:
        _, start, end = self._found[index]
        if end > self._size:
            raise ConfigError(f"{self.path}: record {index}: expected {end} bytes up to its end, got {self._size}")
        self._file.seek(start)
        return np.load(self._file, allow_pickle=False)

    def _scan(self, start: int) -> tuple[Header, int, int]:
        self._file.seek(start)
        try:
            version = np.lib.format.read_magic(self._file)
            if version != (1, 0):  # later versions only exist for headers of more than 64 KiB
                raise ValueError(f"version {version[0]}.{version[1]}")
            shape, _, dtype = np.lib.format.read_array_header_1_0(self._file)
            if dtype.hasobject or not dtype.itemsize or any(size < 0 for size in shape):
                raise ValueError(f"{dtype} {shape}")
        except Exception as error:  # a stranger's bytes: NumPy's parser raises more than it documents
            raise ConfigError(self._complaint(start)) from error
        return Header(dtype, shape), start, self._file.tell() + prod(shape) * dtype.itemsize

    def _complaint(self, start: int) -> str:
        self._file.seek(start)
        got = self._file.read(16)
        cut = ", the file ends too early" if self._size - start < 128 else ""
        return f"{self.path}: record {len(self._found)}: expected a .npy 1.0 record, got {got!r} at byte {start}{cut}"


class OrbaxRecords:
    """An orbax step directory, read with tensorstore: `<step>/default/`, an OCDBT store or plain files, zarr 2."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store: _LeafStore | None = None
        self._arrays: dict[int, Any] = {}

    def header(self, index: int) -> Header | None:
        if index not in self._arrays:
            if self._store is None:
                self._store = _LeafStore(self.path / "default")
            array = self._store.open(index)
            if array is None:
                return None
            self._arrays[index] = array
        array = self._arrays[index]
        return Header(np.dtype(array.dtype.numpy_dtype), tuple(array.shape))

    def read(self, index: int) -> Array:
        try:
            return np.array(self._arrays[index].read().result())
        except Exception as error:  # tensorstore raises ValueError, OSError and more for damaged files
            raise ConfigError(f"{self.path}: leaf_{index}: cannot be read: {_first_line(error)}") from error


class _LeafStore:
    """The key-value store that holds a step's zarr arrays."""

    def __init__(self, directory: Path) -> None:
        try:
            import tensorstore
        except ImportError as error:
            raise MissingDependency("tensorstore", "orbax") from error
        self._tensorstore: Any = tensorstore
        self._directory = directory
        files = {"driver": "file", "path": f"{directory.absolute()}/"}
        is_ocdbt = (directory / "manifest.ocdbt").is_file()
        self._kvstore: dict[str, Any] = {"driver": "ocdbt", "base": files} if is_ocdbt else files
        try:
            self._keys = set(tensorstore.KvStore.open(self._kvstore).result().list().result())
        except Exception as error:  # tensorstore raises ValueError, OSError and more for damaged files
            raise ConfigError(f"{directory}: expected an orbax checkpoint: {_first_line(error)}") from error

    def open(self, index: int) -> Any:
        """Open leaf_<index> without reading it; None if the store has no such leaf."""
        if f"leaf_{index}/.zarray".encode() not in self._keys:
            return None
        prefix = "" if "base" in self._kvstore else self._kvstore["path"]
        spec = {"driver": "zarr", "kvstore": {**self._kvstore, "path": f"{prefix}leaf_{index}/"}}
        try:
            return self._tensorstore.open(spec, open=True, read=True).result()
        except Exception as error:  # tensorstore raises ValueError, OSError and more for damaged files
            raise ConfigError(f"{self._directory}: leaf_{index}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
