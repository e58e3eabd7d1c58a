"""What a message may make of itself is bounded, by both decoders and in every dialect alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.dialect import has_client
from policyserve.core.effects import Answered, Close, Failed, Submit
from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS, HEAVY, WireLimits
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import PolicySpec, paths_in
from policyserve.dialects import Auto, by_name, names
from policyserve.dialects.unpacking import unpack, unpack_views
from tests.counted_memory import counted_memory

OPEN = PolicySpec("open", None, None)


def by_c(frame: bytes, limits: WireLimits) -> Any:
    return unpack(frame, limits=limits)


def by_views(frame: bytes, limits: WireLimits) -> Any:
    return unpack_views(memoryview(bytearray(frame)), limits=limits)


DECODERS = pytest.mark.parametrize("decode", [by_c, by_views])
Decode = Callable[[bytes, WireLimits], Any]


def packed(value: Any) -> bytes:
    frame = msgpack.packb(value)
    assert isinstance(frame, bytes)
    return frame


def refusal(read: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(WireError) as refused:
        read(*arguments)
    return str(refused.value)


@DECODERS
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\xde\x00\x01\xa1a"])
@pytest.mark.parametrize("most", [3, DEFAULT_LIMITS.max_depth, 64])
def test_nesting_is_bounded(decode: Decode, opening: bytes, most: int) -> None:
    limits = replace(DEFAULT_LIMITS, max_depth=most)
    decode(opening * most + b"\x90", limits)
    for beyond in (most + 1, most + 900, most + 2_000):
        expected = f"expected at most {most} levels of nesting, got more"
        assert refusal(decode, opening * beyond + b"\x90", limits).endswith(f": {expected}")


@DECODERS
@pytest.mark.parametrize("most", [40, DEFAULT_LIMITS.max_items])
def test_entries_and_items_are_bounded_one_by_one_and_together(decode: Decode, most: int) -> None:
    limits = replace(DEFAULT_LIMITS, max_items=most)
    room = most - HEAVY  # beside the outer map or list
    numbers, entries, inner = [0] * room, room // HEAVY, room // (HEAVY + 1)
    for whole in (numbers, {str(number): 0 for number in range(entries)}, [[]] * inner, [b"x"] * inner):
        assert decode(packed(whole), limits) == whole
    many = {str(number): 0 for number in range(entries + 1)}
    for value in ([*numbers, 0], many, [[]] * (inner + 1), [b"x"] * (inner + 1), [0] * (3 * most)):
        assert f"expected at most {most} items (--max-items)" in refusal(decode, packed(value), limits)


@DECODERS
@pytest.mark.parametrize("letter", ["k", "é", "😀"])
def test_a_keys_bytes_are_bounded(decode: Decode, letter: str) -> None:
    limits = replace(DEFAULT_LIMITS, max_key=16)
    fits = letter * (16 // len(letter.encode()))
    assert decode(packed({fits: {letter: 0}}), limits) == {fits: {letter: 0}}
    told = refusal(decode, packed({"a": [{fits + letter: 0}]}), limits)
    assert told == f"a[0]: expected a key of at most 16 bytes (--max-key), got {16 + len(letter.encode())}"


def test_a_text_that_is_far_too_long_is_refused_before_it_is_decoded() -> None:
    """A str of it may take four times its bytes, and what it is made in one time more."""
    frame = memoryview(bytearray(packed({"a": ["x" * 1_000_000 + "\U0001f600"]})))
    with counted_memory() as memory:
        told = refusal(lambda: unpack(frame, texts=True))
    assert told == "a[0]: expected a text of at most 100000 characters (--max-text), got 1000004 bytes"
    assert memory.peak < 100_000


@DECODERS
@pytest.mark.parametrize(
    "values", [[1, -7, 200, 1 << 40, 1.5, None, True] * 40, [*range(100), b"x", 2.5], [[0] * 90, 7]]
)
def test_a_long_list_of_numbers_is_read_to_the_value(decode: Decode, values: Any) -> None:
    told = packed({"before": 1, "list": values, "behind": [3] * 50})
    assert decode(told, DEFAULT_LIMITS) == {"before": 1, "list": values, "behind": [3] * 50}
    for end in range(len(told) - 60, len(told)):
        assert "too early" in refusal(decode, told[:end], DEFAULT_LIMITS) or "truncated" in refusal(
            decode, told[:end], DEFAULT_LIMITS
        )


@DECODERS
def test_lists_that_are_announced_and_never_come_take_no_memory(decode: Decode) -> None:
    """Of each the C decoder makes all places at once, and goes a thousand lists deep."""
    for size in (1_000, 100_000):
        frame = (b"\xdd\x00\x00\x3f\x00" * size)[:size]
        with counted_memory() as memory:
            refusal(decode, frame, DEFAULT_LIMITS)
        assert memory.peak < size + (1 << 18)


WRONG_INSIDE = {
    "a number as key": (b"\x81\xa1a\x81\x01\x02", "a: expected texts as map keys"),
    "a key that is no UTF-8": (b"\x81\xa1a\x81\xa1\xff\x02", "a: expected UTF-8"),
    "the same key twice": (b"\x81\xa1a\x91\x82\xa1b\x01\xc4\x01b\x02", "a[0]: expected different keys"),
    "an extension": (b"\x81\xa1a\x81\xa1b\xd4\x05\x00", "a/b: expected"),
    "an end": (b"\x81\xa1a\x92\x01", "a[1]: expected a MessagePack map"),
    "a key of a megabyte": (b"\x81\xa1a\x81\xdb\x00\x10\x00\x00" + b"k" * (1 << 20) + b"\xc1", "a: expected a key of"),
}


@DECODERS
@pytest.mark.parametrize("what", WRONG_INSIDE)
def test_what_cannot_be_read_is_named_by_its_path(decode: Decode, what: str) -> None:
    frame, said = WRONG_INSIDE[what]
    told = refusal(decode, frame, DEFAULT_LIMITS)
    assert told.startswith(said)
    assert len(told) < 300


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_text_that_is_no_utf_8_is_named_by_its_path(size: int) -> None:
    """Small messages are read by the C decoder, large ones by our own."""
    frame = b"\x83\xa1a\x01\xa1x\xc5" + size.to_bytes(2, "big") + bytes(size) + b"\xa1b\x92\x01\xa1\xff"
    assert refusal(lambda: unpack(memoryview(bytearray(frame)), texts=True)).startswith("b[1]: expected")


@pytest.mark.parametrize("name", [name for name in names() if has_client(by_name(name)) and name != "lerobot"])
@pytest.mark.parametrize("most", [2, DEFAULT_LIMITS.max_arrays])
def test_the_arrays_of_a_request_are_bounded(name: str, most: int) -> None:
    dialect, limits = by_name(name), replace(DEFAULT_LIMITS, max_arrays=most)
    observation = {f"a{number}": np.zeros(1) for number in range(most)}
    read = dialect.read_request(dialect.write_request(observation), limits).observation
    assert len(list(paths_in(read))) == most
    told = refusal(dialect.read_request, dialect.write_request({**observation, "more": np.zeros(1)}), limits)
    assert told.endswith(f"expected at most {most} arrays, got {most + 1 if name == 'vibe_rl' else 'more'}")


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
def test_arrays_in_lists_and_maps_and_scalars_count_too(name: str) -> None:
    dialect, limits = by_name(name), replace(DEFAULT_LIMITS, max_arrays=3)
    fine = {"a": [np.zeros(1), np.float32(1)], "b": {"c": np.zeros(1)}, "d": 1.0}
    dialect.read_request(dialect.write_request(fine), limits)
    told = refusal(dialect.read_request, dialect.write_request({**fine, "e": {"f": [0, np.int32(1)]}}), limits)
    assert told == "e/f[1]: expected at most 3 arrays, got more"


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
def test_a_client_reads_as_many_arrays_as_a_server_sends(name: str) -> None:
    many = {f"a{number}": np.zeros(1) for number in range(1_500)}
    greeting = by_name(name).greeting(many)
    assert greeting is not None
    assert by_name(name).read_greeting(greeting).keys() >= many.keys()


TIGHT = {
    "depth": (replace(DEFAULT_LIMITS, max_depth=3), {"x": [[[[0]]]]}, "at most 3 levels of nesting"),
    "items": (replace(DEFAULT_LIMITS, max_items=84), {"x": [0] * 50}, "at most 84 items"),
    "arrays": (replace(DEFAULT_LIMITS, max_arrays=1), {"x": np.zeros(1), "y": np.zeros(1)}, "at most 1 arrays"),
    "text": (replace(DEFAULT_LIMITS, max_text=3), {"x": "long"}, "a text of at most 3 characters"),
}


@pytest.mark.parametrize("limit", TIGHT)
@pytest.mark.parametrize("is_large", [True, False])
@pytest.mark.parametrize("name", ["openpi", "wall_x", None])
def test_a_session_keeps_to_its_limits(name: str | None, limit: str, is_large: bool) -> None:
    limits, surplus, told = TIGHT[limit]
    peer = by_name(name or "openpi")
    plain = {"state": np.zeros(1000 if is_large else 1)}
    good, bad = (memoryview(bytearray(peer.write_request(sent))) for sent in (plain, {**surplus, **plain}))  # type: ignore[arg-type]
    if limit == "arrays":
        bad = memoryview(bytearray(peer.write_request(surplus)))  # type: ignore[arg-type]
    session = Session(by_name(name) if name else None, choice=Auto(), max_pending=64, limits=limits)
    session.serve(OPEN, {})
    if name is None:
        session.silence()  # greets
    for frame in (good, good, good, bad, good):  # the third is read by the layout of those before
        effects = session.receive(frame, 0.0)
        if frame is bad:
            (failed,) = [effect for effect in effects if isinstance(effect, Failed)]
            assert told in str(failed.error)
        else:
            (submit,) = effects
            assert isinstance(submit, Submit)
            session.answer(submit.ticket, Answered(ActionChunk(np.zeros(1)), 0.0, 0.0), 0.0)
    assert not session.closed


@pytest.mark.parametrize("name", ["vibe_rl", None])
def test_a_vibe_rl_session_keeps_to_its_limits(name: str | None) -> None:
    wire = by_name("vibe_rl")
    arrays = wire.write_request({"x": np.zeros(1), "y": np.zeros(1)})
    deep = packed({"obs": b"", "__meta__": {"obs": {"dtype": "<f4", "shape": [0], "more": [[0]]}}})
    packed_meta = packed({"obs": b"", "__meta__": packed({"obs": {"dtype": "<f4", "shape": [0], "more": [[[0]]]}})})
    items = packed({"obs": b"", "__meta__": {"obs": {"dtype": "<f4", "shape": [0], "more": [0] * 150}}})
    limits = replace(DEFAULT_LIMITS, max_depth=3, max_items=150, max_arrays=1)
    for frame, told in (
        (arrays, "expected at most 1 arrays, got 2"),
        (deep, "__meta__/obs/more[0]: expected at most 3 levels of nesting, got more"),
        (packed_meta, "__meta__/obs/more[0][0]: expected at most 3 levels of nesting, got more"),
        (
            items,
            "__meta__/obs/more: expected at most 150 items (--max-items): list items, and map entries, texts, bins, m",
        ),
    ):
        session = Session(by_name(name) if name else None, choice=Auto(), max_pending=8, limits=limits)
        session.serve(OPEN, {})
        (closed,) = [effect for effect in session.receive(frame, 0.0) if isinstance(effect, Close)]
        assert (closed.code, closed.reason[:90]) == (1008, f"{told} [bad_frame]"[:90])
        roomy = Session(by_name(name) if name else None, choice=Auto(), max_pending=8)
        roomy.serve(OPEN, {})
        assert [type(effect) for effect in roomy.receive(frame, 0.0)] == [Submit]


def test_who_finds_out_the_dialect_keeps_to_the_limits() -> None:
    frame = by_name("openpi").write_request({"state": np.zeros(1), "x": [[[[0]]]]})
    assert Auto().settle(frame, greeted=False).name == "openpi"
    assert Auto().settle(frame, greeted=False, limits=replace(DEFAULT_LIMITS, max_depth=3)).name == "vibe_rl"
