"""Reading without copying gives what the C decoder gives, and refuses what it refuses."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import WireError
from policyserve.dialects import by_name
from policyserve.dialects.unpacking import unpack, unpack_views

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=300),
    st.text(max_size=40),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(st.text(max_size=40), inner, max_size=20)),
)


def packed(value: Any) -> bytes:
    frame = msgpack.packb(value)
    assert isinstance(frame, bytes)
    return frame


def outcome(read: Any, frame: bytes, texts: bool) -> Any:
    """What a reader makes of a frame: its value, or that it refuses."""
    try:
        return read(frame if read is unpack else memoryview(bytearray(frame)), texts=texts)
    except WireError:
        return WireError


@settings(max_examples=300, deadline=None)
@given(value=VALUES, texts=st.booleans())
def test_every_value_is_read_alike(value: Any, texts: bool) -> None:
    frame = packed(value)
    assert outcome(unpack_views, frame, texts) == outcome(unpack, frame, texts)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), texts=st.booleans())
def test_every_damaged_frame_is_read_alike(data: st.DataObject, texts: bool) -> None:
    frame = bytearray(packed(data.draw(VALUES)))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(frame[: data.draw(st.integers(1, len(frame)))])
    ours, theirs = outcome(unpack_views, cut, texts), outcome(unpack, cut, texts)
    assert repr(ours) == repr(theirs)  # NaN equals itself only here


@pytest.mark.parametrize("name", ["openpi", "wall_x", "vibe_rl"])
def test_large_arrays_are_writable_views_of_the_message_and_small_ones_are_not(name: str) -> None:
    observation = {"image": np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3), "state": np.arange(7.0)}
    buffer = bytearray(by_name(name).write_request(observation))  # type: ignore[arg-type]
    read = by_name(name).read_request(memoryview(buffer)).observation
    for key, sent in observation.items():
        np.testing.assert_array_equal(read[key], sent)
        assert read[key].flags.writeable
        assert read[key].flags.aligned
    whole = np.frombuffer(buffer, np.uint8)
    assert np.shares_memory(read["image"], whole)
    assert not np.shares_memory(read["state"], whole)


def test_a_large_bin_that_is_no_array_comes_as_bytes() -> None:
    frame = memoryview(bytearray(packed({"prompt": b"x" * 5000})))
    assert by_name("openpi").read_request(frame).observation == {"prompt": b"x" * 5000}


@given(frame=st.binary(min_size=1, max_size=300))
def test_any_bytes_are_a_value_or_a_wire_error(frame: bytes) -> None:
    with suppress(WireError):
        unpack_views(memoryview(bytearray(frame)))
