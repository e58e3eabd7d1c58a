"""Any bytes give a message or a WireError, nothing else, and cost little."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policyserve.core.dialect import Dialect, has_client
from policyserve.core.errors import BadObservation, RemoteError, WireError
from policyserve.core.messages import Request
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import Auto, by_name, names
from policyserve.dialects.unpacking import unpack, unpack_views
from tests.shared import shared_path

DIALECTS = [by_name(name) for name in names()]
SPECS = [
    PolicySpec("open", None, None),
    PolicySpec("cartpole", {"obs": ArraySpec((4,))}, ArraySpec((), "int32"), max_client_batch=8),
]
OBSERVATION = {"obs": np.arange(4, dtype="f4"), "b": np.float32(2)}
WRITERS = [dialect for dialect in DIALECTS if has_client(dialect)]
GOOD = [bytes(dialect.write_request(OBSERVATION)) for dialect in WRITERS]


def read(dialect: Dialect, frame: Any) -> None:
    """Read a frame as a server and as a client would; lets nothing but refusals pass."""
    try:
        request = dialect.read_request(frame)
        assert isinstance(request, Request)
        for spec in SPECS:
            spec.validate(request.observation)
    except (WireError, BadObservation):
        pass
    with suppress(WireError, RemoteError):
        dialect.read_reply(frame)
    with suppress(WireError, RemoteError):
        dialect.read_greeting(frame)


def read_by_all(frame: Any) -> None:
    for dialect in DIALECTS:
        read(dialect, frame)
    for greeted in (True, False):
        assert Auto().settle(frame, greeted) in DIALECTS


@given(st.binary(max_size=200) | st.text(max_size=20))
@example(b"")
@example(b"\xc1")
@example(b"\xc7\x00\x01")
@example(b"\x81\xa1a\xc7\x00\x05")
@example(b"\xd6\xff\x00\x00\x00\x00")
@example(b"\x82\xc4\x03obs\xc7\x00\x05\xc4\x08__meta__\x80")
def test_any_bytes_are_read_or_refused(frame: bytes | str) -> None:
    read_by_all(frame)


KEYS = st.sampled_from(
    ["obs", "__meta__", "dtype", "shape", "__ndarray__", "__npgeneric__", "data", "nd", "type", "kind", "complex",
     "action", "actions", "latency_ms", "server_timing", "", "a/b", "x" * 300]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(),
    st.binary(max_size=20), st.text(max_size=5),
    st.sampled_from(["<f4", ">f8", "|O", "V8", "bool", "<f2", "u1", b"<f4", "f4,f4", "<f2"]),
    st.lists(st.integers(-2, 5), max_size=3),
)  # fmt: skip
MESSAGES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | KEYS.map(str.encode), inner, max_size=5),
    max_leaves=20,
)


@given(MESSAGES)
@settings(max_examples=400)
def test_any_message_is_read_or_refused(message: Any) -> None:
    read_by_all(msgpack.packb(message))


ENTRIES = st.fixed_dictionaries(
    {}, optional={"dtype": LEAVES, "shape": LEAVES | st.lists(LEAVES, max_size=4), "x": LEAVES}
)


@given(LEAVES, ENTRIES | LEAVES, st.booleans())
@settings(max_examples=300)
def test_any_meta_is_read_or_refused(data: Any, entry: Any, is_packed: bool) -> None:
    meta = {"obs": entry}
    read_by_all(msgpack.packb({"obs": data, "__meta__": msgpack.packb(meta) if is_packed else meta}))


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_good_frame_with_wrong_bytes_is_read_or_refused(frame: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(frame)
    for index, byte in changes:
        changed[index % len(changed)] = byte
    read_by_all(bytes(changed))


def test_every_truncation_of_a_good_frame_is_refused() -> None:
    for dialect, frame in zip(WRITERS, GOOD, strict=True):
        for length in range(len(frame)):
            with pytest.raises(WireError):
                dialect.read_request(frame[:length])


def test_golden_frames_with_any_byte_changed_are_read_or_refused() -> None:
    frames = sorted(shared_path("vibe_rl", "golden").glob("cartpole_ppo/frames/*_req.bin"))
    assert frames
    dialect = by_name("vibe_rl")
    for path in frames:
        frame = path.read_bytes()
        for index in range(min(len(frame), 90)):
            for byte in (0x00, 0x80, 0xC1, 0xDF, 0xFF, frame[index] ^ 1):
                read(dialect, frame[:index] + bytes([byte]) + frame[index + 1 :])


# Bombs: the frames are small or plain, what they ask for is not.


def nested(opening: bytes, depth: int) -> bytes:
    return opening * depth + b"\x90"


def shaped(shape: list[Any]) -> bytes:
    return msgpack.packb({"obs": b"", "__meta__": {"obs": {"dtype": "<f4", "shape": shape}}}) or b""


BOMBS = {
    "arrays nested a thousand deep": nested(b"\x91", 1_000),
    "arrays nested a million deep": nested(b"\x91", 1_000_000),
    "maps nested a thousand deep": b"\x81\xa1a" * 1_000 + b"\x80",
    "deep behind a number": b"\x92\x01" + nested(b"\x91", 900),
    "deep behind a number in a map": b"\x81\xa1a\x92\x01" + nested(b"\x91", 900),
    "a million empty maps": b"\xdd\x00\x0f\x42\x40" + b"\x80" * 1_000_000,
    "a million empty maps in lists of ten thousand": (b"\xdc\x00\x64" + (b"\xdc\x27\x10" + b"\x80" * 10_000) * 100),
    "a million keys": b"\xdf\x00\x0f\x42\x40" + b"\xa1a\xc0" * 1_000_000,
    "an array that says four billion": b"\xdd\xff\xff\xff\xff",
    "a map that says four billion": b"\xdf\xff\xff\xff\xff",
    "a bin that says four gigabytes": b"\xc6\xff\xff\xff\xff",
    "a text that says four gigabytes": b"\xdb\xff\xff\xff\xff",
    "an extension that says four gigabytes": b"\xc9\xff\xff\xff\xff\x01",
    "lists of the largest size, nested": b"\xdc\x40\x00" * 900,
    "maps of the largest size, nested": b"\xde\x40\x00\xa1a" * 900,
    "lists nested in a shape": shaped([[[[[[1]]]]]]),
    "a shape of ten thousand": shaped([-1] + [2**63] * 9_999),
    "a shape that asks for 2**80 bytes": shaped([2**39, 2**38, 0]),
}  # fmt: skip


@pytest.mark.parametrize("frame", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_in_little_memory(frame: bytes) -> None:
    tracemalloc.start()
    try:
        for dialect in DIALECTS:
            with pytest.raises(WireError):
                dialect.read_request(frame)
            Auto().settle(frame, greeted=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 250e6


@pytest.mark.parametrize("key", [1, None, 1.5, True])
def test_a_key_that_is_no_text_is_refused(key: Any) -> None:
    with pytest.raises(WireError, match="texts as map keys"):
        unpack(msgpack.packb({key: 1}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "frame", [b"\x81\x90\x01", b"\x81\x80\x01", b"\x81\xc4\x01\xff\x01", b"\x82\xa1a\x01\xc4\x01a\x01"]
)
def test_a_list_a_map_bad_utf8_and_a_double_are_no_keys(frame: bytes) -> None:
    for texts in (True, False):
        with pytest.raises(WireError):
            unpack(frame, texts=texts)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("text", "a text frame"),
        (b"", "an empty frame"),
        (b"\x81", "a truncated frame"),
        (b"\xc4\x05abc", "a truncated frame"),
        (b"\x80\x80", "1 bytes after it"),
        (b"\xc1", "not MessagePack"),
        (b"\x91" * 9 + b"\x90", "levels of nesting"),
        (b"\x91" * 5_000 + b"\x90", "at most 8 levels of nesting"),
        (b"\xc7\x00\x05", "extension type 5"),
    ],
)
def test_a_refusal_says_what_it_got(frame: bytes | str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        unpack(frame)


def test_a_number_that_does_not_fit_its_dtype_becomes_inf() -> None:
    message = msgpack.packb({"a": {"__npgeneric__": True, "data": 1e300, "dtype": "<f2"}})
    assert np.isinf(by_name("openpi").read_request(message or b"").observation["a"])


def test_bytes_in_any_container_are_read() -> None:
    for kind in (bytes, bytearray, memoryview):
        for dialect, frame in zip(WRITERS, GOOD, strict=True):
            read_again = dialect.read_request(kind(frame)).observation
            state = read_again.get("state")
            obs = read_again.get("obs", state["obs"] if isinstance(state, dict) else state)
            assert obs[:4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("inner", [b"\x80", b"\x81\xa1a\x01", b"\x91\x01", b"\x91\x80"])
def test_both_decoders_bound_the_depth_alike(inner: bytes) -> None:
    """How large a message is must not decide whether it is too deep."""
    for depth in range(6, 11):
        frame = b"\x91" * depth + inner
        try:
            plain = unpack(frame)
        except WireError:
            plain = "refused"
        try:
            viewed = unpack_views(memoryview(frame))
        except WireError:
            viewed = "refused"
        assert plain == viewed
