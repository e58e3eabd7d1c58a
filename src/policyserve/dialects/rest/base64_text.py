"""Reads base64 by NumPy, which lets other threads run meanwhile: `binascii` holds the interpreter for 4 ms a megabyte.

What passes is what encoders write: the alphabet of RFC 4648 with `+` and `/`, padded, without line ends.
"""

from __future__ import annotations

import binascii
from functools import lru_cache

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import WireError

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NO_PAIR = 1 << 12  # what a pair of letters stands for of which one is not in the alphabet
_SLICE = 1 << 15  # groups of four letters: what fits in a core's cache
_SMALL = 1 << 12  # letters, up to which the library is faster
_EXPECTED = "base64: letters, digits, + and /, padded with ="


def read_base64(text: str, path: str) -> memoryview:
    """The bytes of a base64 text, which may be written to; raises WireError naming `path`."""
    try:
        letters = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise WireError(path, _EXPECTED, f"{text[error.start]!r} at {error.start}") from None
    if len(letters) % 4:
        raise WireError(path, _EXPECTED, f"{len(letters)} letters, which are no groups of four")
    whole = len(letters) - 4 if len(letters) > _SMALL else 0  # the last group may be padded
    try:
        last = binascii.a2b_base64(_strict(letters[whole:]))
    except ValueError as error:
        raise WireError(path, _EXPECTED, f"{error!s:.80}") from None
    made = np.empty(whole // 4 * 3 + len(last), np.uint8)
    made[whole // 4 * 3 :] = np.frombuffer(last, np.uint8)
    if whole:
        _decode(np.frombuffer(letters, np.uint16, whole // 2), made[: whole // 4 * 3].reshape(-1, 3), path)
    return memoryview(made.data)


def _strict(letters: bytes) -> bytes:
    """The letters; raises ValueError for what the library would leave out, and decode the rest."""
    body = letters.rstrip(b"=")
    if len(letters) - len(body) > 2 or body.translate(None, _ALPHABET):
        raise ValueError("another letter among them")
    return letters


def _decode(pairs: Array, groups: Array, path: str) -> None:
    """pairs: (2 n,), two letters in each. groups: (n, 3), where the bytes go."""
    table = _table()
    for start in range(0, len(groups), _SLICE):
        made = groups[start : start + _SLICE]
        twelve = np.take(table, pairs[2 * start : 2 * (start + len(made))])  # of each pair 12 bits
        if twelve.max() >= _NO_PAIR:
            place = int((twelve >= _NO_PAIR).argmax()) * 2 + start * 4
            raise WireError(path, _EXPECTED, f"another letter at {place} or {place + 1}")
        first, second = twelve[::2], twelve[1::2]
        made[:, 0] = first >> 4
        made[:, 1] = (first << 4 | second >> 8) & 0xFF
        made[:, 2] = second & 0xFF


@lru_cache(maxsize=1)
def _table() -> Array:
    """What each pair of letters stands for, by the number that its two bytes are in this machine's order."""
    six = np.full(256, _NO_PAIR, np.uint16)
    six[np.frombuffer(_ALPHABET, np.uint8)] = np.arange(64)
    letters = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    first, second = six[letters[:, 0]], six[letters[:, 1]]
    return np.where((first | second) >= _NO_PAIR, _NO_PAIR, first << 6 | second).astype(np.uint16)
