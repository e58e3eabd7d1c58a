"""Which other files an ONNX file has its weights in, read from its bytes.

Older releases of onnxruntime read any file that a model names; here it has to lie in the model's folder or below.
What is followed are the messages of onnx.proto3 in which a tensor can stand, by their fields' numbers.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from policyserve.core.errors import ConfigError

_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types; groups, the others, are in no ONNX file
_FIXED = {_EIGHT: 8, _FOUR: 4}
_DEEPEST = 64
_LONGEST = 10  # bytes of a varint


def check_external(file: str, path: Path) -> None:
    """Raise ConfigError if weights lie outside the model's folder, or in a file that is not there."""
    for location in dict.fromkeys(_locations(file, path)):
        told = f"its weights lie in a second file, {location!r}"
        inside = os.path.normpath(location)
        if os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir or "\0" in location:
            raise ConfigError(f"{file}: {told}, outside its folder, which is refused: export it again")
        if not (path.parent / inside).is_file():
            raise ConfigError(f"{file}: {told}, which is not beside it: copy both")


def external_files(file: str, path: Path) -> list[Path]:
    """The files that hold a model's weights besides its own, of a model that check_external() found fine."""
    return [path.parent / location for location in dict.fromkeys(_locations(file, path))]


def _locations(file: str, path: Path) -> Iterator[str]:
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            for start, end in _entries(content, 0, len(content), "model", 0):
                fields = {number: content[first:last] for number, first, last in _fields(content, start, end)}
                if fields.get(1) == b"location":
                    yield fields.get(2, b"").decode(errors="surrogateescape")
        except (IndexError, RecursionError) as error:
            raise ConfigError(f"{file}: expected an ONNX model, got a file that is cut off or none") from error


def _entries(content: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[tuple[int, int]]:
    """Where the entries stand that say where a tensor's numbers are, in a message of this kind."""
    if depth > _DEEPEST:
        raise RecursionError
    inside = _INSIDE[kind]
    for number, first, last in _fields(content, start, end):
        inner = inside.get(number)
        if inner == "entry":
            yield first, last
        elif inner is not None:
            yield from _entries(content, first, last, inner, depth + 1)


def _fields(content: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message that hold bytes: number, begin and end. Raises IndexError where it is cut off."""
    while place < end:
        key, place = _varint(content, place, end)
        wire = key & 7
        if wire == _VARINT:
            _, place = _varint(content, place, end)
        elif wire == _BYTES:
            size, first = _varint(content, place, end)
            place = first + size
            if place > end:
                raise IndexError
            yield key >> 3, first, place
        elif wire in _FIXED:
            place += _FIXED[wire]
        else:
            raise IndexError
    if place > end:
        raise IndexError


def _varint(content: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = 0
    for count in range(_LONGEST):
        if place >= end:
            raise IndexError
        byte = content[place]
        value |= (byte & 127) << 7 * count
        place += 1
        if byte < 128:
            return value, place
    raise IndexError
