"""Explains why an observation cannot be sent: the path of the value, what it is, and what to send in its place.

It runs only after writing has failed, so that a request that can be sent costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from policyserve.core.errors import WireError
from policyserve.dialects.packing import packed

_MAX_DEPTH = 64  # a map that holds itself has no end
EXPECTED = "an array of numbers, a text, a number, or a map or list of these"
_ARRAY_CURES = {
    "U": "send a str, or a list of str (.tolist() makes one)",
    "S": "send a str, or a list of str",
    "O": "send an array of numbers, such as np.asarray(value, np.float32)",
    "M": "send a number, seconds for example",
    "m": "send a number, seconds for example",
    "c": "send its real and imaginary parts as two arrays",
    "V": "send its fields one by one",
}


def why_not(observation: Any, write: Callable[[Any], Any]) -> WireError | None:
    """The refusal of the first value that cannot be sent, in order; None if each can.

    write: what MessagePack is to make of a value that it does not know; raises if that is nothing.
    """
    if not isinstance(observation, Mapping):
        hint = 'send it under its key, as in {"obs": array}' if isinstance(observation, np.ndarray) else ""
        return WireError("", "a map of arrays, texts and numbers", with_article(type_name(observation)), hint)
    return next(_refusals(observation, write, "", 0), None)


def encoded_key(key: Any, path: str = "") -> bytes:
    """A map's key in UTF-8; raises WireError for one that is no text. path: of the map."""
    if not isinstance(key, str):
        hint = f"send it under {str(key)!r}" if isinstance(key, (int, np.integer)) else ""
        raise WireError(_below(path, key), "a text as key", f"a key of type {type_name(key)}", hint)
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise WireError(_below(path, key), "a text as key", "a text that is no UTF-8") from None


def type_name(value: Any) -> str:
    """A value's type for people: `torch.Tensor`, `int`."""
    kind = type(value)
    return kind.__name__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def told(value: Any) -> str:
    """What a value is, as far as it says why it cannot be sent."""
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{'an array' if isinstance(value, np.ndarray) else 'a scalar'} of {value.dtype}"
    if type(value) is int:
        return "an int beyond 64 bits"
    if type(value) is str:
        return "a text that is no UTF-8"
    return with_article(type_name(value))


def with_article(name: str) -> str:
    """A type's name behind its article: `an object`, `a torch.Tensor`."""
    return f"an {name}" if name[:1].lower() in ("a", "e", "i", "o") else f"a {name}"


def cure(value: Any) -> str:
    """What to send in place of a value; empty if there is nothing to say."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _ARRAY_CURES.get(value.dtype.kind, "")
    if type(value) is int:
        return "send a float"
    if type(value) is str:
        return ""
    if type(value).__module__.split(".")[0] == "torch":
        return "send .detach().cpu().float().numpy() of it"
    return "send a NumPy array or a text made of it"


def _refusals(value: Any, write: Callable[[Any], Any], path: str, depth: int) -> Iterator[WireError]:
    if depth > _MAX_DEPTH:
        yield WireError(path, f"at most {_MAX_DEPTH} maps and lists inside each other", "more", "does it hold itself?")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            try:
                encoded_key(key, path)
            except WireError as refusal:
                yield refusal
            yield from _refusals(inner, write, _below(path, key), depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _refusals(inner, write, f"{path}[{index}]", depth + 1)
    else:
        try:
            packed(value, default=write)
        except Exception:  # a stranger's object, whose conversion may raise anything
            yield WireError(path, EXPECTED, told(value), cure(value))


def _below(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)
