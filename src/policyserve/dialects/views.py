"""Decodes MessagePack without copying: a large bin becomes a view of the message's own buffer.

The C decoder copies every bin into a block of its own, which for camera frames costs more than all else. This one reads
the same language, a little slower per item, and leaves to that one the numbers of a long list. It makes nothing that
the message's bytes do not fill: of a list that is announced and does not come the C decoder makes all places at once.
"""

from __future__ import annotations

import re
import struct
from itertools import islice
from typing import Any

import msgpack
import numpy as np

from policyserve.core.arrays import Bin, Placed
from policyserve.core.errors import WireError
from policyserve.core.limits import HEAVY, WireLimits

_COPIED = 1024  # bytes; a smaller bin is copied, so that it does not keep a large buffer alive
_MAX_STEP = 100  # characters of a key in a path: the bound on keys may be much higher
_LONG = 16  # numbers of a list, from which on they are left to the C decoder
ENDED = "a frame that ends too early"


class ViewReader:
    """Reads one value from `data`.

    placed: if given, every bin is a Bin that notes there what becomes of it, and every float64 is noted.
    """

    def __init__(self, data: memoryview, texts: bool, limits: WireLimits, placed: list[Placed] | None = None) -> None:
        self.position = 0
        self._data = data
        self._size = len(data)
        self._texts = texts
        self._max_depth = limits.max_depth
        self._max_items = self._items_left = limits.max_items
        self._max_key = limits.max_key
        self._max_text_bytes = max(limits.max_text * _MOST_PER_LETTER, _COPIED)  # a dtype's name is a text, too
        self._max_text = limits.max_text
        self._placed = placed

    def read(self, depth: int = 0) -> Any:
        """The next value; raises WireError for anything that is no MessagePack, or beyond the limits."""
        position = self.position
        if position >= self._size:
            raise WireError("", "a MessagePack map", ENDED)
        self.position = position + 1
        tag = self._data[position]
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

    def _sized(self, kind: str, count: int, depth: int) -> Any:  # a count beyond the message's end fails in here
        if kind == "map":
            return self._map(count, depth)
        if kind == "list":
            return self._list(count, depth)
        if kind == "text":
            return self._text(count)
        self._count(HEAVY)
        taken = self._take(count)
        if self._placed is not None:
            return Bin.at(taken, self.position - count, self._placed)
        return bytes(taken) if count < _COPIED else taken

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        self._enter(count * HEAVY, depth)
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
        look_at = 0 if self._placed is None else count  # from which item on many numbers are looked for
        while len(read) < count:
            if look_at <= len(read) <= count - _LONG:
                before = len(read)
                self._read_numbers(count, read)
                look_at = len(read) + (1 if len(read) > before else _LONG)
                continue
            try:
                read.append(self.read(depth + 1))
            except WireError as error:
                raise below(f"[{len(read)}]", error) from None
        return read

    def _read_numbers(self, count: int, to: list[Any]) -> None:
        """Read as many of the next `count` values as are numbers, bools or nil, one behind the other."""
        while len(to) < count:
            found = _NUMBERS_ALONE.match(self._data, self.position)
            if found is None or found.end() - self.position < _LONG:
                return
            unpacker: Any = msgpack.Unpacker(max_buffer_size=found.end() - self.position)
            unpacker.feed(self._data[self.position : found.end()])
            to.extend(islice(unpacker, count - len(to)))
            self.position += unpacker.tell()

    def _enter(self, items: int, depth: int) -> None:
        if depth > self._max_depth:
            raise too_deep(self._max_depth)
        self._count(items + HEAVY)

    def _count(self, items: int) -> None:
        self._items_left -= items
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
        taken = self._take(size)
        if size > self._max_key:
            raise long_key(self._max_key, size)
        try:
            return str(taken, "utf-8")
        except UnicodeDecodeError:
            raise _no_utf8(taken) from None

    def _text(self, size: int) -> str | bytes | memoryview:
        self._count(HEAVY)
        taken = self._take(size)
        if not self._texts:
            return bytes(taken) if size < _COPIED else taken
        if size > self._max_text_bytes:
            raise WireError("", f"a text of at most {self._max_text} characters (--max-text)", f"{size} bytes")
        try:
            return str(taken, "utf-8")
        except UnicodeDecodeError:
            raise _no_utf8(taken) from None

    def _byte(self) -> int:
        position = self.position
        if position >= self._size:
            raise WireError("", "a MessagePack map", ENDED)
        self.position = position + 1
        return self._data[position]

    def _take(self, count: int) -> memoryview:
        begin = self.position
        end = self.position = begin + count
        if end > self._size:
            raise WireError("", "a MessagePack map", ENDED)
        return self._data[begin:end]


def below(step: str, error: WireError) -> WireError:
    """An error in what stands below a map's key or, as `[2]`, in a list."""
    separator = "/" if error.path and not error.path.startswith("[") else ""
    if len(step) > _MAX_STEP:
        step = f"{step[:_MAX_STEP]}…"
    return WireError(f"{step}{separator}{error.path}", error.expected, error.got, error.hint)


def _no_utf8(taken: memoryview) -> WireError:
    return WireError("", "UTF-8 texts", f"{bytes(taken[:20])!r}")


def too_deep(max_depth: int) -> WireError:
    """The refusal of maps and lists that nest deeper."""
    return WireError("", f"at most {max_depth} levels of nesting", "more")


def too_many_items(max_items: int) -> WireError:
    """The refusal of a message that would become more of them."""
    counted = f"list items, and map entries, texts, bins, maps and lists as {HEAVY} each"
    return WireError("", f"at most {max_items} items (--max-items): {counted}", "more")


def long_key(max_key: int, size: int) -> WireError:
    """The refusal of a key of `size` bytes."""
    return WireError("", f"a key of at most {max_key} bytes (--max-key)", f"{size}")


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
_NUMBERS_ALONE = re.compile(
    rb"(?:[\x00-\x7f\xe0-\xff\xc0\xc2\xc3]|\xcb.{8}|\xca.{4}"
    rb"|[\xcc\xd0].|[\xcd\xd1].{2}|[\xce\xd2].{4}|[\xcf\xd3].{8}){0,512}",  # for each the engine keeps a place
    re.DOTALL,
)
_MOST_PER_LETTER = 4  # bytes of UTF-8
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
