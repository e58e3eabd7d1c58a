"""Decisions out of bytes: what turns a fuzzer's input into structured data, with atheris or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Reads decisions from the front of `data`; when it is used up, every decision is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def is_used_up(self) -> bool:
        """Whether nothing is left to decide by."""
        return self._position >= len(self._data)

    def number(self, largest: int) -> int:
        """0 … largest."""
        size = (largest.bit_length() + 7) // 8
        return int.from_bytes(self.bytes(size).ljust(size, b"\0"), "big") % (largest + 1)

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.number(len(options) - 1)]

    def chance(self, one_in: int) -> bool:
        """True once in so many times; false when the data is used up."""
        return not self.is_used_up and self.number(one_in - 1) == one_in - 1

    def bytes(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        taken = self._data[self._position : self._position + count]
        self._position += count
        return taken

    def some_bytes(self, most: int) -> bytes:
        """A drawn number of bytes."""
        return self.bytes(self.number(most))

    def rest(self) -> bytes:
        """All that is left."""
        return self.bytes(len(self._data))

    def pieces(self, data: bytes) -> list[bytes]:
        """`data` cut at drawn places; whole if nothing is left to decide by."""
        cut: list[bytes] = []
        while data and not self.is_used_up:
            count = self.pick((1, 2, 3, 7, 14, 64, 1000, 65_536, len(data))) + self.number(3)
            cut.append(data[:count])
            data = data[count:]
        return [*cut, data] if data else cut

    def scribbled(self, data: bytes) -> bytes:
        """`data` with a few drawn changes: bytes exchanged, cut out, doubled, cut off."""
        changed = bytearray(data)
        for _ in range(self.number(3)):
            if not changed:
                break
            place, count = self.number(len(changed) - 1), 1 + self.number(8)
            kind = self.number(4)
            if kind == 0:
                changed[place] = self.number(255)
            elif kind == 1:
                del changed[place : place + count]
            elif kind == 2:
                changed[place:place] = changed[place : place + count]
            elif kind == 3:
                del changed[place:]
            else:
                changed[place:place] = self.bytes(count)
        return bytes(changed)
