"""Reads a message without decoding it, if it differs from an earlier one in nothing but the data of its arrays.

core/reading.py decides which messages a Layout is learned from. What must stay true: a Layout gives what decoding the
message would have given, or None. It reads a message only if every byte outside its holes is the same as in the message
that it was learned from. A hole is the place of an array's data, or of a float's; no other decoded value depends on its
bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from policyserve.core.arrays import Array, Placed, array_from_buffer
from policyserve.core.leaf_specs import ArraySpec

_COPIED = 1024  # bytes; a smaller array is copied, so that it does not keep the message's whole buffer alive


class Layout:
    """The bytes around the holes of one message, and what a message with the same bytes is decoded to.

    template: the decoded message, with a hole in place of each value that is read anew from the next one. holes: those,
    and the places of values that are dropped, whose bytes do not matter.
    """

    def __init__(self, message: memoryview, template: Any, holes: Iterable[Hole]) -> None:
        ordered = sorted(holes, key=lambda hole: hole.start)
        self._size = len(message)
        self._around = _around(ordered, self._size)
        self._same = self._around.unpack(message)
        self._floats = _floats(ordered, self._size)
        self._made = _maker_of(template)

    def read(self, message: memoryview) -> Any | None:
        """What a message of this layout holds; None for any other. Raises BadObservation as a hole's cast does."""
        if len(message) != self._size or self._around.unpack(message) != self._same:
            return None
        return self._made.make(message, self._floats.unpack(message))


class Hole(Protocol):
    """Where the bytes of a value stand in a message, and how they are read."""

    start: int
    stop: int

    def make(self, message: memoryview, floats: tuple[float, ...]) -> Any:
        """The value; floats: all those of the message."""
        ...


class ArrayHole:
    """An array's data."""

    __slots__ = ("_cast", "_copies", "_dtype", "_is_plain", "_path", "_shape", "start", "stop")

    def __init__(self, array: Array, placed: Placed) -> None:
        self.start, self.stop = placed.start, placed.start + array.nbytes
        self._dtype, self._shape = placed.dtype, placed.shape
        self._is_plain = placed.dtype.isnative and placed.dtype.kind != "b" and array.nbytes > 0
        self._copies = array.nbytes < _COPIED
        self._cast: ArraySpec | None = None  # to this spec's dtype
        self._path = ""

    def cast_by(self, leaf: ArraySpec, path: str) -> ArrayHole:
        """Itself, its arrays cast as the spec does."""
        self._cast, self._path = leaf, path
        return self

    def make(self, message: memoryview, floats: tuple[float, ...]) -> Array:
        if not self._is_plain:
            array = array_from_buffer(message[self.start : self.stop], self._dtype, self._shape, self._path)
        elif self._copies:
            array = np.ndarray(self._shape, self._dtype, bytearray(message[self.start : self.stop]))
        else:
            array = np.ndarray(self._shape, self._dtype, message, self.start)
            if not array.flags.aligned:
                array = array.copy()
        return array if self._cast is None else self._cast.read(array, self._path)[0]


class FloatHole:
    """A float64's eight bytes."""

    __slots__ = ("index", "start", "stop")

    def __init__(self, placed: Placed) -> None:
        self.start, self.stop = placed.start, placed.start + 8
        self.index = 0  # among the floats of its layout

    def make(self, message: memoryview, floats: tuple[float, ...]) -> float:
        return floats[self.index]


def hole_of(placed: Placed) -> ArrayHole | FloatHole:
    """The hole that a value leaves in its message."""
    return ArrayHole(placed.value, placed) if isinstance(placed.value, np.ndarray) else FloatHole(placed)


def template_of(decoded: Any, holes: Mapping[int, Hole], used: list[Hole]) -> Any:
    """A decoded message with holes in place of values; holes: by a value's id. used: gets those that were found."""
    if isinstance(decoded, dict):
        return {key: template_of(inner, holes, used) for key, inner in decoded.items()}
    hole = holes.get(id(decoded))
    if hole is None:
        return decoded
    used.append(hole)
    return hole


class _Maker(Protocol):
    """Makes one decoded value: a hole's, a map's with holes in it, or a copy of one that is always the same."""

    def make(self, message: memoryview, floats: tuple[float, ...]) -> Any: ...


class _Map:
    """A map, some values of which are read anew from each message."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        self._template = dict(template)  # with all keys, in their order
        self._made = [(key, _maker_of(value)) for key, value in template.items() if _is_made(value)]

    def make(self, message: memoryview, floats: tuple[float, ...]) -> dict[str, Any]:
        made = self._template.copy()
        for key, maker in self._made:
            made[key] = maker.make(message, floats)
        return made


class _Copied:
    """A list or an array that is the same in each message; it is copied, since the policy may write into it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def make(self, message: memoryview, floats: tuple[float, ...]) -> Any:
        return _copied(self._value)


def _is_made(value: Any) -> bool:
    return isinstance(value, (ArrayHole, FloatHole, dict, list, np.ndarray))


def _maker_of(template: Any) -> _Maker:
    if isinstance(template, (ArrayHole, FloatHole)):
        return template
    return _Map(template) if isinstance(template, dict) else _Copied(template)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def _around(holes: list[Hole], size: int) -> struct.Struct:
    """The struct that unpacks the bytes between the holes, which must be equal."""
    form, end = [">"], 0
    for hole in holes:
        form.append(f"{hole.start - end}s{hole.stop - hole.start}x")
        end = hole.stop
    return struct.Struct("".join((*form, f"{size - end}s")))


def _floats(holes: list[Hole], size: int) -> struct.Struct:
    """The struct that unpacks the floats; sets the index of each FloatHole."""
    form, end = [">"], 0
    floats = [hole for hole in holes if isinstance(hole, FloatHole)]
    for index, hole in enumerate(floats):
        form.append(f"{hole.start - end}xd")
        hole.index, end = index, hole.stop
    return struct.Struct("".join((*form, f"{size - end}x")))
