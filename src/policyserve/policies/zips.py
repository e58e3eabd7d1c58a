"""Reading zip archives that strangers made: nothing is extracted, and nothing grows beyond what their size allows.

Only what checkpoints need: entries that are stored or deflated, sizes below 4 GiB, no encryption, no second disk. An
entry is read where the central directory says it lies, and checked against its CRC.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct, error
from typing import TypeAlias

from policyserve.core.errors import ConfigError, names_told
from policyserve.policies.files import reading

Bytes: TypeAlias = "bytes | memoryview"

_END = Struct("<4s4H2LH")  # PK\5\6, two disks, entries here and in all, the directory's size and offset, a comment
_LISTED = Struct("<4s6H3L5H2L")  # PK\1\2 and an entry of the directory
_LOCAL = Struct("<4s5H3L2H")  # PK\3\4 before an entry's data
_LONGEST_COMMENT = 0xFFFF
_TOO_LARGE = 0xFFFFFFFF  # what stands where a size needs 64 bits
_STORED, _DEFLATED = 0, 8
_MOST_GROWTH = 64  # times the archive's size that its inflated entries may take together


def names_in(path: Path, told: str) -> list[str]:
    """The names in an archive, of which nothing else is read; raises ConfigError that begins with `told`."""
    with reading(told, "a zip archive"), path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return list(Zip(memoryview(mapped), told))


@dataclass(frozen=True)
class _Entry:
    method: int
    crc: int
    packed: int
    size: int
    offset: int


class Zip(Mapping[str, memoryview]):
    """A zip archive by its entries' names; reading one raises ConfigError that begins with `told`."""

    def __init__(self, data: Bytes, told: str) -> None:
        self._data, self._told = memoryview(data), told
        try:
            self._entries = dict(self._listed())
        except (error, IndexError) as cause:
            raise ConfigError(f"{told}: expected a zip archive, got one whose list of entries is damaged") from cause
        self._left = _MOST_GROWTH * len(self._data)

    def __getitem__(self, name: str) -> memoryview:
        if name not in self._entries:
            raise ConfigError(f"{self._told}: expected an entry {name!r}, got {names_told(self._entries)}")
        entry = self._entries[name]
        place = f"{self._told}: {name}"
        packed = self._packed(entry, place)
        data = packed if entry.method == _STORED else self._inflated(packed, entry, place)
        if len(data) != entry.size or zlib.crc32(data) != entry.crc:
            raise ConfigError(f"{place}: expected {entry.size} bytes of CRC {entry.crc:08x}, got others: it is damaged")
        return data

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _listed(self) -> Iterator[tuple[str, _Entry]]:
        place, count = self._directory()
        seen: set[str] = set()
        for _ in range(count):
            (mark, _, _, flags, method, _, _, crc, packed, size, name_size, more, comment, _, _, _, offset) = (
                _LISTED.unpack_from(self._data, place)
            )
            place += _LISTED.size
            name = bytes(self._data[place : place + name_size]).decode("utf-8", "replace")
            place += name_size + more + comment
            if mark != b"PK\1\2":
                raise error("no entry here")
            if name in seen or flags & 1 or method not in (_STORED, _DEFLATED) or _TOO_LARGE in (packed, size, offset):
                got = "it twice" if name in seen else "one that is encrypted, of 4 GiB, or packed in another way"
                raise ConfigError(f"{self._told}: {name!r:.80}: expected an entry stored or deflated, got {got}")
            seen.add(name)
            yield name, _Entry(method, crc, packed, size, offset)

    def _directory(self) -> tuple[int, int]:
        """Where the list of entries begins, and how many there are."""
        tail = bytes(self._data[-(_END.size + _LONGEST_COMMENT) :])
        found = tail.rfind(b"PK\5\6")
        if found < 0:
            got = "an empty file" if not self._data else "another file, or one that was cut short"
            raise ConfigError(f"{self._told}: expected a zip archive, got {got}")
        _, _, _, _, count, _, offset, _ = _END.unpack_from(tail, found)
        return offset, count

    def _packed(self, entry: _Entry, place: str) -> memoryview:
        try:
            mark, *_, name_size, more = _LOCAL.unpack_from(self._data, entry.offset)
        except error:
            mark, name_size, more = b"", 0, 0
        start = entry.offset + _LOCAL.size + name_size + more
        packed = self._data[start : start + entry.packed]
        if mark != b"PK\3\4" or len(packed) != entry.packed:
            raise ConfigError(f"{place}: expected {entry.packed} bytes at byte {entry.offset}, got fewer, or others")
        return packed

    def _inflated(self, packed: memoryview, entry: _Entry, place: str) -> memoryview:
        self._left -= entry.size
        if self._left < 0:
            most = f"entries that grow to {_MOST_GROWTH} times the archive's {len(self._data)} bytes at most"
            raise ConfigError(f"{place}: expected {most}, got {entry.size} bytes more")
        try:
            # One byte more than it may have, so that an entry which lies about its size is found out.
            return memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.size + 1))
        except zlib.error as cause:
            raise ConfigError(f"{place}: expected deflated data, got {cause}") from cause
