"""Reads JSON of strangers, within bounds that hold before anything is built. Pure.

What must stay true: the cost of a body is bounded by its bytes and by the limits of one message. Python's own parser
has no bounds: of 32 MiB of `[0,0,…` it would make sixteen million numbers, and hold the interpreter for a second.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import numpy as np

from policyserve.core.arrays import Buffer
from policyserve.core.errors import WireError
from policyserve.core.limits import HEAVY, WireLimits

_MOST_DIGITS = 64  # of one number: a float64 has 17
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1
_SLICE = 1 << 20  # bytes that are looked at in one call
_COMMA, _COLON, _LIST, _MAP = b",:[{"


def read_json(body: Buffer | str, limits: WireLimits) -> Any:
    """The value of a JSON text; raises WireError that says what is wrong, and where.

    Refused besides what is no JSON: NaN and Infinity, numbers beyond float64 and 64 bits, a key that a map has twice,
    surrogates alone, more items or levels than the limits say.
    """
    text = body if isinstance(body, str) else _decoded(body)
    _check_items(text.encode() if isinstance(body, str) else body, limits)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise WireError("", "JSON", f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep(limits) from None
    _check(value, "", limits, limits.max_depth)
    return value


def _decoded(body: Buffer) -> str:
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError("", "JSON in UTF-8", f"byte {body[error.start]:#04x} at {error.start}") from None


def _check_items(body: Buffer, limits: WireLimits) -> None:
    """Refuse a text that could become more items than one message may have; commas within texts count, too."""
    view = np.frombuffer(body, np.uint8)
    most = limits.max_items
    items = 0
    for start in range(0, len(view), _SLICE):
        piece = view[start : start + _SLICE]
        commas, colons = (int(np.count_nonzero(piece == sign)) for sign in (_COMMA, _COLON))
        containers = int(np.count_nonzero((piece == _LIST) | (piece == _MAP)))
        items += commas + (colons + containers) * HEAVY
        if items > most:
            cure = 'send arrays as {"__numpy__": base64, "dtype": …, "shape": […]}, pictures as base64 of a PNG or JPEG'
            raise WireError("", f"at most {most} items (--max-items)", "more", cure)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise WireError("", "each key once in a map", f"{key[:40]!r} twice")
            seen.add(key)
    return made


def _float(digits: str) -> float:
    value = float(digits) if len(digits) <= _MOST_DIGITS else math.inf
    if not math.isfinite(value):
        raise WireError("", "numbers that a float64 holds", digits[:40])
    return value


def _int(digits: str) -> int:
    value = int(digits) if len(digits) <= _MOST_DIGITS else _MOST_INT + 1
    if not _LEAST_INT <= value <= _MOST_INT:
        raise WireError("", "whole numbers of 64 bits", digits[:40])
    return value


def _constant(name: str) -> NoReturn:
    raise WireError("", "finite numbers, which JSON has alone", name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_float, parse_int=_int, parse_constant=_constant, strict=True
)


def _too_deep(limits: WireLimits) -> WireError:
    return WireError("", f"at most {limits.max_depth} levels of nesting (--max-depth)", "more")


def _check(value: Any, path: str, limits: WireLimits, depth: int) -> None:
    """Check depth, keys and texts; the number of items is bounded by now."""
    if isinstance(value, str):
        _check_text(value, path)
        return
    if not isinstance(value, (dict, list)):
        return
    if depth < 0:
        raise _too_deep(limits)
    for place, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(place, str):
            _check_key(place, path, limits)
        if isinstance(inner, (str, dict, list)):
            here = (
                f"{path}/{place}"
                if path and isinstance(place, str)
                else f"{path}{place if isinstance(place, str) else f'[{place}]'}"
            )
            _check(inner, here, limits, depth - 1)


def _check_key(key: str, path: str, limits: WireLimits) -> None:
    _check_text(key, path)
    if len(key) > limits.max_key or len(key.encode()) > limits.max_key:
        raise WireError(path, f"keys of at most {limits.max_key} bytes (--max-key)", f"{key[:20]!r}…")


def _check_text(text: str, path: str) -> None:
    """JSON can spell half a letter, a surrogate alone, which nobody can write again."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WireError(path, "a text of whole letters", f"a surrogate alone at {error.start}") from None
