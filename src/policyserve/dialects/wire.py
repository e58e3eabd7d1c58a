"""MessagePack for strangers: bounded, without code execution, and every failure a WireError."""

from __future__ import annotations

from typing import Any

import msgpack

from policyserve.core.arrays import Placed
from policyserve.core.errors import WireError
from policyserve.core.messages import Frame
from policyserve.dialects.views import ViewReader

MAX_DEPTH = 8
# A map or list costs its sender one byte and us some sixty: bound what a frame can make us build.
_MAX_ITEMS = 16_384
_VIEWED = 4096  # bytes, from which not copying saves more than the C decoder is quicker


def unpack(frame: Frame, *, texts: bool = False, placed: list[Placed] | None = None) -> Any:
    """Decode one MessagePack value that is the whole frame; map keys come as str, be they string or bin on the wire.

    texts: strings come as str; else strings and bins both come as bytes. In a large memoryview bins are views of it.
    placed: for a memoryview, bins come as Bin and note there which arrays are made of them.
    Raises WireError for a text frame, an empty or truncated one, trailing bytes, duplicate keys, extension types,
    deep nesting, and frames of more than 16,384 map entries and list items.
    """
    if isinstance(frame, str):
        raise WireError("", "a binary frame", "a text frame")
    if not frame:
        raise WireError("", "a MessagePack map", "an empty frame")
    if isinstance(frame, memoryview) and (len(frame) >= _VIEWED or placed is not None):
        return unpack_views(frame, texts=texts, placed=placed)
    bounds = _Bounds()
    try:
        value = msgpack.unpackb(
            frame,
            raw=not texts,
            strict_map_key=False,
            max_map_len=_MAX_ITEMS,
            max_array_len=_MAX_ITEMS,
            max_ext_len=0,
            object_pairs_hook=bounds.read_map,
            list_hook=bounds.read_list,
            ext_hook=_refuse_extension,
        )
    except WireError:
        raise
    except msgpack.ExtraData as error:
        raise WireError("", "one MessagePack value", f"{len(error.extra)} bytes after it") from error
    except Exception as error:  # a stranger's bytes: msgpack raises half a dozen types for them
        raise WireError("", "a MessagePack map", _reason(error)) from error
    if bounds.containers > MAX_DEPTH:  # fewer cannot nest deeper
        check_depth(value)
    return value


def unpack_views(frame: memoryview, *, texts: bool = False, placed: list[Placed] | None = None) -> Any:
    """unpack() for a large message: its bins of 1 KiB and more are views of `frame`."""
    reader = ViewReader(frame, texts, MAX_DEPTH, _MAX_ITEMS, placed)
    value = reader.read()
    if reader.position != len(frame):
        raise WireError("", "one MessagePack value", f"{len(frame) - reader.position} bytes after it")
    return value


class _Bounds:
    """Hooks of one decoding; they count what it has built."""

    def __init__(self) -> None:
        self._items = 0
        self.containers = 0

    def read_map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self._count(len(pairs))
        decoded = {key if type(key) is str else _MARKERS.get(key) or _read_key(key): value for key, value in pairs}
        if len(decoded) != len(pairs):
            raise WireError("", "different keys in a map", "the same key twice")
        return decoded

    def read_list(self, values: list[Any]) -> list[Any]:
        self._count(len(values))
        return values

    def _count(self, items: int) -> None:
        self.containers += 1
        self._items += items + 1
        if self._items > _MAX_ITEMS:
            raise WireError("", f"at most {_MAX_ITEMS} map entries and list items", "more")


def _refuse_extension(code: int, data: bytes) -> Any:
    raise WireError("", "maps, lists, texts, bins and numbers", f"extension type {code}")


# The bin keys that every frame has: looking them up is quicker than decoding them.
_MARKERS = {
    name.encode(): name
    for name in ("__ndarray__", "data", "dtype", "shape", "nd", "type", "kind", "__meta__", "action", "latency_ms")
}


def _read_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if not isinstance(key, bytes):
        raise WireError("", "texts as map keys", f"a key of type {type(key).__name__}")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("", "UTF-8 map keys", f"{key[:20]!r}") from None


def check_depth(value: Any, depth: int = 0) -> None:
    """Raise WireError if maps and lists nest deeper than MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise WireError("", f"at most {MAX_DEPTH} levels of nesting", "more")
    if isinstance(value, dict):
        for inner in value.values():
            if isinstance(inner, (dict, list)):
                check_depth(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, (dict, list)):
                check_depth(inner, depth + 1)


def _reason(error: Exception) -> str:
    if isinstance(error, msgpack.StackError):
        return "a value nested too deep"
    if isinstance(error, (msgpack.OutOfData, ValueError)) and "incomplete" in str(error):
        return "a truncated frame"
    return f"bytes that are not MessagePack{f' ({error})' if str(error) else ''}"[:120]
