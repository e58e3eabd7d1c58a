"""Decodes MessagePack that strangers sent: within bounds, without running code; every failure is a WireError."""

from __future__ import annotations

from typing import Any

import msgpack

from policyserve.core.arrays import Placed
from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS, HEAVY, WireLimits
from policyserve.core.messages import Message
from policyserve.dialects.views import ENDED, ViewReader, below, long_key, too_deep

_VIEWED = 1024  # bytes; from here on our own reader, which copies nothing and has room for nothing that does not come
_MOST_PER_BYTE = HEAVY + 1  # items that one byte counts as: an empty list in a list
_HEADERS = bytes((0xDC, 0xDD, 0xDE, 0xDF))  # of maps and lists of any length
_MOST_HEADERS = 32  # in a message that the C decoder gets: for each it may make as many places as the message has bytes


def unpack(
    message: Message, *, texts: bool = False, placed: list[Placed] | None = None, limits: WireLimits = DEFAULT_LIMITS
) -> Any:
    """Decode one MessagePack value that is the whole message; map keys come as str, be they string or bin on the wire.

    texts: strings come as str; else strings and bins both come as bytes. In a large message they are views of it.
    placed: for a memoryview, bins come as Bin and note there which arrays are made of them, float64s note themselves.
    Raises WireError for a text message, an empty or truncated one, trailing bytes, duplicate keys, extension types,
    and what is deeper, has more items or longer keys than `limits` say.
    """
    if isinstance(message, str):
        raise WireError("", "a binary frame", "a text frame")
    if not message:
        raise WireError("", "a MessagePack map", "an empty frame")
    if placed is not None or not _is_small(message, limits):
        return unpack_views(memoryview(message), texts=texts, placed=placed, limits=limits)
    bounds = _Bounds(limits.max_key)
    try:
        value = msgpack.unpackb(
            message,
            raw=not texts,
            strict_map_key=False,
            max_map_len=len(message),
            max_array_len=len(message),
            max_ext_len=0,
            object_pairs_hook=bounds.read_map,
            list_hook=bounds.read_list,
            ext_hook=_refuse_extension,
        )
    except WireError as error:
        raise _with_path(error, message, texts, limits) from None
    except msgpack.ExtraData as error:
        raise WireError("", "one MessagePack value", f"{len(error.extra)} bytes after it") from error
    except Exception as error:  # a stranger's bytes: msgpack raises half a dozen types for them
        raise _with_path(_refusal(error, limits), message, texts, limits) from error
    if bounds.containers > limits.max_depth:  # fewer containers cannot nest deeper than the limit
        check_depth(value, limits.max_depth)
    return value


def _is_small(message: bytes | bytearray | memoryview, limits: WireLimits) -> bool:
    """Whether the C decoder may read it: it cannot hold too many items, whatever it says, nor make room for as many."""
    if len(message) >= _VIEWED or len(message) * _MOST_PER_BYTE > limits.max_items:
        return False
    return len(message) - len(bytes(message).translate(None, _HEADERS)) <= _MOST_HEADERS


def _with_path(error: WireError, message: bytes | bytearray | memoryview, texts: bool, limits: WireLimits) -> WireError:
    """The C decoder's refusal with the path that our own reader, which fails at the same place, has for it."""
    try:
        unpack_views(memoryview(message), texts=texts, limits=limits)
    except WireError as found:
        return WireError(found.path, error.expected, error.got, error.hint)
    return error


def unpack_views(
    message: memoryview, *, texts: bool = False, placed: list[Placed] | None = None, limits: WireLimits = DEFAULT_LIMITS
) -> Any:
    """Decode a large message as unpack() does, raising WireError; bins of 1 KiB and more are views of `message`."""
    reader = ViewReader(message, texts, limits, placed)
    value = reader.read()
    if reader.position != len(message):
        raise WireError("", "one MessagePack value", f"{len(message) - reader.position} bytes after it")
    return value


class _Bounds:
    """Hooks of one decoding; they count the maps and lists that it has built."""

    def __init__(self, max_key: int) -> None:
        self._max_key = max_key
        self.containers = 0

    def read_map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self.containers += 1
        decoded = {key if type(key) is str else _MARKERS.get(key) or _read_key(key): value for key, value in pairs}
        if len(decoded) != len(pairs):
            raise WireError("", "different keys in a map", "the same key twice")
        for key in decoded:
            size = len(key) if key.isascii() else len(key.encode())
            if size > self._max_key:
                raise long_key(self._max_key, size)
        return decoded

    def read_list(self, values: list[Any]) -> list[Any]:
        self.containers += 1
        return values


def _refuse_extension(code: int, data: bytes) -> Any:
    raise WireError("", "maps, lists, texts, bins and numbers", f"extension type {code}")


# The bin keys that every message has: looking them up is quicker than decoding them.
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


def check_depth(value: Any, max_depth: int, depth: int = 0) -> None:
    """Raise WireError, with the path, if maps and lists nest deeper than max_depth."""
    if depth > max_depth:
        raise too_deep(max_depth)
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, (dict, list)):
                _check_below(key, inner, max_depth, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, (dict, list)):
                _check_below(f"[{index}]", inner, max_depth, depth + 1)


def _check_below(step: str, value: Any, max_depth: int, depth: int) -> None:
    try:
        check_depth(value, max_depth, depth)
    except WireError as error:
        raise below(step, error) from None


def _refusal(error: Exception, limits: WireLimits) -> WireError:
    if isinstance(error, msgpack.StackError):  # deeper than the decoder goes, and that is deeper than any limit
        return too_deep(limits.max_depth)
    if "exceeds max_map_len" in str(error) or "exceeds max_array_len" in str(error):  # longer than the message
        return WireError("", "a MessagePack map", ENDED)
    return WireError("", "a MessagePack map", _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, (msgpack.OutOfData, ValueError)) and "incomplete" in str(error):
        return "a truncated frame"
    return f"bytes that are not MessagePack{f' ({error})' if str(error) else ''}"[:120]
