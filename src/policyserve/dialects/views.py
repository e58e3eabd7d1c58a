"""Decodes MessagePack without copying: a large bin becomes a view of the message's own buffer.

The C decoder copies every bin into a block of its own, which for camera frames costs more than all else. This one reads
the same language, a little slower per item; unpacking.unpack() uses it for large messages.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from policyserve.core.arrays import Bin, Placed
from policyserve.core.errors import WireError
from policyserve.core.limits import WireLimits

_COPIED = 1024  # bytes; a smaller bin is copied, so that it does not keep a large buffer alive
_MAX_STEP = 100  # characters of a key in a path: a client's key may be as long as its message
_ENDED = "a frame that ends too early"


class ViewReader:
    """Reads one value from `data`.

    placed: if given, every bin is a Bin that notes there what becomes of it, and every float64 is noted.
    """

    def __init__(self, data: memoryview, texts: bool, limits: WireLimits, placed: list[Placed] | None = None) -> None:
        self.position = 0
        self._data = data
        self._texts = texts
        self._max_depth = limits.max_depth
        self._max_items = self._items_left = limits.max_items
        self._placed = placed

    def read(self, depth: int = 0) -> Any:
        """The next value; raises WireError for anything that is no MessagePack, or beyond the limits."""
        tag = self._byte()
        if tag <= 0x7F:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if tag <= 0x8F:
            return self._map(tag & 0x0F, depth)
        if tag <= 0x9F:
            return self._list(tag & 0x0F, depth)
        if tag <= 0xBF:
            return self._text(tag & 0x1F)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _NUMBERS:
            number: struct.Struct = _NUMBERS[tag]
            value = number.unpack(self._take(number.size))[0]
            if self._placed is not None and tag == _FLOAT64:
                self._placed.append(Placed(value, self.position - number.size, _DOUBLE, ()))
            return value
        if tag in _SIZES:
            kind, size = _SIZES[tag]
            count: int = size.unpack(self._take(size.size))[0]
            return self._sized(kind, count, depth)
        raise WireError("", "maps, lists, texts, bins and numbers", f"MessagePack type {tag:#04x}")

    def _sized(self, kind: str, count: int, depth: int) -> Any:
        if kind == "map":
            return self._map(count, depth)
        if kind == "list":
            return self._list(count, depth)
        if kind == "text":
            return self._text(count)
        taken = self._take(count)
        if self._placed is not None:
            return Bin.at(taken, self.position - count, self._placed)
        return bytes(taken) if count < _COPIED else taken

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        self._enter(count, depth)
        read: dict[str, Any] = {}
        for _ in range(count):
            key = self._key()
            if key in read:
                raise WireError("", "different keys in a map", "the same key twice")
            try:
                read[key] = self.read(depth + 1)
            except WireError as error:
                raise below(key, error) from None
        return read

    def _list(self, count: int, depth: int) -> list[Any]:
        self._enter(count, depth)
        read: list[Any] = []
        for index in range(count):
            try:
                read.append(self.read(depth + 1))
            except WireError as error:
                raise below(f"[{index}]", error) from None
        return read

    def _enter(self, count: int, depth: int) -> None:
        if depth > self._max_depth:
            raise too_deep(self._max_depth)
        self._items_left -= count + 1
        if self._items_left < 0:
            raise too_many_items(self._max_items)

    def _key(self) -> str:
        tag = self._byte()
        if 0xA0 <= tag <= 0xBF:
            size = tag & 0x1F
        elif tag in _SHORT:  # as most markers are
            size = self._byte()
        elif tag in _SIZES and _SIZES[tag][0] in ("text", "bin"):
            size = _SIZES[tag][1].unpack(self._take(_SIZES[tag][1].size))[0]
        else:
            raise WireError("", "texts as map keys", f"MessagePack type {tag:#04x}")
        return self._decode(self._take(size))

    def _text(self, size: int) -> str | bytes:
        taken = self._take(size)
        return self._decode(taken) if self._texts else bytes(taken)

    def _decode(self, taken: memoryview) -> str:
        try:
            return str(taken, "utf-8")
        except UnicodeDecodeError:
            raise WireError("", "UTF-8 texts", f"{bytes(taken[:20])!r}") from None

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise WireError("", "a MessagePack map", _ENDED)
        byte = self._data[self.position]
        self.position += 1
        return byte

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self._data):
            raise WireError("", "a MessagePack map", _ENDED)
        taken = self._data[self.position : end]
        self.position = end
        return taken


def below(step: str, error: WireError) -> WireError:
    """An error in what stands below a map's key or, as `[2]`, in a list."""
    separator = "/" if error.path and not error.path.startswith("[") else ""
    if len(step) > _MAX_STEP:
        step = f"{step[:_MAX_STEP]}…"
    return WireError(f"{step}{separator}{error.path}", error.expected, error.got, error.hint)


def too_deep(max_depth: int) -> WireError:
    """The refusal of maps and lists that nest deeper."""
    return WireError("", f"at most {max_depth} levels of nesting", "more")


def too_many_items(max_items: int) -> WireError:
    """The refusal of a message that would become more of them."""
    return WireError("", f"at most {max_items} map entries and list items", "more")


_FLOAT64, _DOUBLE = 0xCB, np.dtype(">f8")
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
    0xD0: struct.Struct(">b"),
    0xD1: struct.Struct(">h"),
    0xD2: struct.Struct(">i"),
    0xD3: struct.Struct(">q"),
}
_SHORT = (0xC4, 0xD9)  # a bin's or text's size is one byte
_ONE, _TWO, _FOUR = struct.Struct(">B"), struct.Struct(">H"), struct.Struct(">I")
_SIZES = {
    0xC4: ("bin", _ONE),
    0xC5: ("bin", _TWO),
    0xC6: ("bin", _FOUR),
    0xD9: ("text", _ONE),
    0xDA: ("text", _TWO),
    0xDB: ("text", _FOUR),
    0xDC: ("list", _TWO),
    0xDD: ("list", _FOUR),
    0xDE: ("map", _TWO),
    0xDF: ("map", _FOUR),
}
