"""Frames that no honest client sends: those that end other servers of this field, and what else a stranger may try."""

from __future__ import annotations

from typing import Any

import msgpack

from policyserve.dialects import by_name

from .asks import Ask

_PICKLE = bytes.fromhex("80049500000000000000008c05706f7369789493948c026964948552942e")  # names posix and id


def forged_frames(dialect: str) -> dict[str, bytes | str]:
    """By name; every one of them is to be refused in this dialect, and nothing else is to happen."""
    good = by_name(dialect).write_request(Ask(0, 0, 0).observation())
    assert isinstance(good, bytes)
    frames: dict[str, bytes | str] = {
        "nothing": b"",
        "a text": "reset",
        "no MessagePack": b"\xc1",
        "cut off": good[: len(good) // 2],
        "with more behind it": good + b"\x00",
        "a list": _pack([1, 2]),
        "a number": _pack(7),
        "lists a million deep": b"\x91" * 1_000_000 + b"\x90",
        "a map that says four billion": b"\xdf\xff\xff\xff\xff",
        "a bin that says four gigabytes": b"\x81\xa3who\xc6\xff\xff\xff\xff",
        "a million empty maps": b"\xdd\x00\x0f\x42\x40" + b"\x80" * 1_000_000,
        "an extension type": b"\x81\xa3who\xc7\x03\x05abc",
        "the same key twice": b"\x82\xa3who\x01\xa3who\x01",
        "a key that is a list": b"\x81\x90\x01",
        "a pickle": _PICKLE,
        "an observation without its keys": _observation(dialect, {"state": ("<f8", [3], bytes(24))}),
        "a state of another size": _observation(dialect, {**_GOOD, "who": ("<f8", [5], bytes(40))}),
        "a text in the place of numbers": _observation(dialect, {**_GOOD, "who": ("<f8", [3], "numbers")}),
    }
    for name, (dtype, shape, data) in _ARRAYS.items():
        frames[f"an array of {name}"] = _observation(dialect, {**_GOOD, "who": (dtype, shape, data)})
    if dialect == "wall_x":
        frames["an object array that runs code"] = _marked(
            {"nd": True, "type": "O", "kind": b"O", "data": b"\x80\x04N."}
        )
        frames["a complex number that is code"] = _marked({"complex": True, "data": "__import__('os').getpid()"})
        frames["a structured array"] = _marked(
            {"nd": True, "type": [["a", "<f8"]], "kind": b"V", "shape": [3], "data": bytes(24)}
        )
    return frames


# What ends a server that trusts a dtype or a shape: dtype, shape, data.
_ARRAYS: dict[str, tuple[Any, Any, Any]] = {
    "objects": ("|O", [3], bytes(24)),
    "voids": ("V8", [3], bytes(24)),
    "dates": ("<M8[s]", [3], bytes(24)),
    "texts": ("<U6", [1], bytes(24)),
    "complex numbers": ("<c8", [3], bytes(24)),
    "records": ("f8,f8", [3], bytes(48)),
    "an unknown dtype": ("float33", [3], bytes(24)),
    "a dtype that is a number": (8, [3], bytes(24)),
    "a dtype that is a program": ("__import__('os').abort()", [3], bytes(24)),
    "a negative size": ("<f8", [-3], bytes(24)),
    "a shape that overflows": ("<f8", [1 << 62, 1 << 62, 3], bytes(24)),
    "a shape of texts": ("<f8", ["3"], bytes(24)),
    "a shape of a hundred dimensions": ("<f8", [1] * 100 + [3], bytes(24)),
    "more than its bytes": ("<f8", [4000], bytes(24)),
    "less than its bytes": ("<f8", [2], bytes(24)),
}
_GOOD: dict[str, tuple[Any, Any, Any]] = {
    "who": ("<f8", [3], bytes(24)),
    "do": ("<f8", [3], bytes(24)),
    "picture": ("|u1", [0], b""),
}


def _observation(dialect: str, arrays: dict[str, tuple[Any, Any, Any]]) -> bytes:
    """Arrays in a dialect's own spelling, whatever they say of themselves."""
    if dialect == "vibe_rl":
        meta = {key: {"dtype": dtype, "shape": shape} for key, (dtype, shape, _) in arrays.items()}
        return _pack({**{key: data for key, (_, _, data) in arrays.items()}, "__meta__": meta})
    spell = _openpi_array if dialect == "openpi" else _wall_x_array
    return _pack({key: spell(*parts) for key, parts in arrays.items()})


def _openpi_array(dtype: Any, shape: Any, data: Any) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}


def _wall_x_array(dtype: Any, shape: Any, data: Any) -> dict[bytes, Any]:
    return {b"nd": True, b"type": dtype, b"kind": b"", b"shape": shape, b"data": data}


def _marked(array: dict[str, Any]) -> bytes:
    rest = {key: _wall_x_array(*parts) for key, parts in _GOOD.items() if key != "who"}
    return _pack({"who": {key.encode(): value for key, value in array.items()}, **rest})


def _pack(message: Any) -> bytes:
    packed = msgpack.packb(message)
    assert isinstance(packed, bytes)
    return packed
