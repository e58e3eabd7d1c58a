"""The leaves of a saved train state, one by one: no framework, no template, and only what is asked for.

state.eqx   NumPy .npy records (version 1.0) one after another, one per leaf in tree order, nothing around them.
orbax       a directory <step>/ whose key-value store holds zarr arrays leaf_0, leaf_1, … in the same order.

A header is read before its data, so that a file cannot make us allocate what nobody expected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.log import Log
from policyserve.policies.files import reading

log = Log(__name__)

_NAMED = 6  # arrays that an error names

_TWO_BYTES = np.dtype("V2")  # a .npy record of bfloat16, which NumPy cannot name


@dataclass(frozen=True)
class Header:
    """What a record holds."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return describe(self.dtype_name, self.shape)

    @property
    def dtype_name(self) -> str:
        """The dtype for people: two bytes of no kind are `bfloat16`."""
        return "bfloat16" if self.dtype == _TWO_BYTES else str(self.dtype)

    def fits(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Whether read_as() can give it as `dtype`: the shape is this one, and both are floats or both are integers."""
        kind = _kind(self.dtype)
        return self.shape == shape and (self.dtype == dtype or (kind in "fi" and kind == _kind(dtype)))


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


def read_as(records: Records, index: int, dtype: np.dtype[Any]) -> Array:
    """Read a record whose header fits `dtype`, cast to it; floats are rounded, integers are not.

    Raises ConfigError for a number that is too large for `dtype`.
    """
    values = records.read(index)
    if values.dtype == dtype:
        return values
    if values.dtype == _TWO_BYTES:
        if dtype.name == "bfloat16":
            return values.view(dtype)
        values = _float32_of_bfloat16(values)
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    is_kept = np.isfinite(cast) | ~np.isfinite(values) if _kind(dtype) == "f" else cast == values
    if not is_kept.all():
        too_large = values[~is_kept].flat[0]
        raise ConfigError(f"{records.path}: record {index}: expected numbers that {dtype} can hold, got {too_large}")
    return cast


def tell_casts(records: Records, wanted: Sequence[np.dtype[Any]]) -> None:
    """Say in one line of the log which dtypes the first records have, if they are not the wanted ones."""
    found = [(records.header(index), dtype) for index, dtype in enumerate(wanted)]
    casts = {(header.dtype_name, str(dtype)) for header, dtype in found if header is not None}
    told = ", ".join(f"{ours} read as {theirs}" for ours, theirs in sorted(casts) if ours != theirs)
    if told:
        log.info("%s: weights of another precision: %s", records.path, told)


def _kind(dtype: np.dtype[Any]) -> str:
    """`f` for floats of any width and byte order, `i` for integers, else NumPy's letter."""
    if dtype.name == "bfloat16" or dtype == _TWO_BYTES:
        return "f"
    return "i" if dtype.kind in "iu" else dtype.kind


def _float32_of_bfloat16(values: Array) -> Array:
    return (values.view("<u2").astype(np.uint32) << 16).view(np.float32)  # the upper half of a float32


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
        with reading(f"{self.path}: record {index}", "an array"):
            return np.load(self._file, allow_pickle=False)

    def is_whole(self) -> bool:
        """Whether the file ends where a record does: one that is being written mostly does not."""
        try:
            while self.header(len(self._found)) is not None:
                pass
        except ConfigError:
            return False
        return bool(self._found) and self._found[-1][2] == self._size

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
            keys = tensorstore.KvStore.open(self._kvstore).result().list().result()
        except Exception as error:  # tensorstore raises ValueError, OSError and more for damaged files
            raise ConfigError(f"{directory}: expected an orbax checkpoint: {_first_line(error)}") from error
        ends = [key.decode("utf-8", "replace") for key in keys if key.endswith(b"/.zarray")]
        self._names = {key.removesuffix("/.zarray") for key in ends}
        self._prefix = self._find_prefix()

    def open(self, index: int) -> Any:
        """Open leaf_<index> without reading it; None if the store has no such leaf."""
        name = f"{self._prefix}leaf_{index}"
        if name not in self._names:
            return None
        folder = "" if "base" in self._kvstore else self._kvstore["path"]
        spec = {"driver": "zarr", "kvstore": {**self._kvstore, "path": f"{folder}{name}/"}}
        try:
            return self._tensorstore.open(spec, open=True, read=True).result()
        except Exception as error:  # tensorstore raises ValueError, OSError and more for damaged files
            raise ConfigError(f"{self._directory}: {name}: {_first_line(error)}") from error

    def _find_prefix(self) -> str:
        """What stands before `leaf_0`: a state that was saved inside another tree has that tree's names before its own.

        Raises ConfigError if several states are there, or arrays of other names only.
        """
        firsts = [name.removesuffix("leaf_0") for name in self._names if name.endswith("leaf_0")]
        prefixes = sorted(prefix for prefix in firsts if prefix[-1:] in ("", ".", "/"))
        if "" in prefixes or not self._names:
            return ""
        if len(prefixes) == 1:
            told = "%s: its leaves are named %sleaf_0, …: read as leaf_0, …"
            log.warning(told, self._directory, prefixes[0])
            return prefixes[0]
        names = sorted(self._names)
        got = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        expected = "one train state" if prefixes else "a train state"
        raise ConfigError(f"{self._directory}: expected {expected}, leaf_0, leaf_1, …, got {got}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
